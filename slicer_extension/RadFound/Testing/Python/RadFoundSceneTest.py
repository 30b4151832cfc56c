"""Test inside Slicer that exported volumes keep their voxels and geometry."""

import os
import tempfile
import unittest

import numpy as np
import slicer
from RadFoundLib.scene import scene


class RadFoundSceneTest(unittest.TestCase):
    def setUp(self):
        slicer.mrmlScene.Clear()

    def test_an_exported_volume_comes_back_as_it_was(self):
        voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
        affine = np.array([[0.0, -2, 0.1, 7], [1.5, 0, 0, -8], [0, 0.2, 3, 9], [0, 0, 0, 1]])
        volume = slicer.util.addVolumeFromArray(voxels, affine, "made")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "made.nrrd")
            with scene.content_of(volume).open() as content, open(path, "wb") as file:
                file.write(content.read())
            storage = slicer.vtkMRMLNRRDStorageNode()
            storage.SetFileName(path)
            read = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
            self.assertTrue(storage.ReadData(read))
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(read), voxels)
        np.testing.assert_allclose(scene.content_of(read).affine, affine, atol=1e-5)

    def test_a_text_lies_under_its_volume(self):
        volume = slicer.util.addVolumeFromArray(np.zeros((3, 4, 5), np.int16), None, "made")
        node = scene.save_text(volume, "Report", "No effusion.", "answer-1")
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
        self.assertEqual(parent, hierarchy.GetItemByDataNode(volume))
