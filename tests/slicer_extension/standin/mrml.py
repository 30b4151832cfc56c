"""A scene of the real MRML library, as a started Slicer would have it."""

from types import SimpleNamespace

import slicer
import slicer.util
from vtk.util import numpy_support

VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


def new_scene():
    """Make a scene with colours and three slice views the one that `slicer` speaks of."""
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    application = slicer.vtkMRMLApplicationLogic()
    application.SetMRMLScene(scene)
    colours = slicer.vtkMRMLColorLogic()
    colours.SetMRMLScene(scene)
    colours.AddDefaultColorNodes()
    slicer.modules.logics = SimpleNamespace(application=application, colours=colours)
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
    for name, orientation in VIEWS.items():
        add_view(name, orientation)
    return scene


def add_view(name, orientation="Axial"):
    """Add a slice view to the layout, such as those that compare volumes."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", name)
    node.SetLayoutName(name)
    node.SetSingletonTag(name)
    node.SetOrientation(orientation)
    node.SetMappedInLayout(True)
    composite = slicer.vtkMRMLSliceCompositeNode()
    composite.SetLayoutName(name)
    composite.SetSingletonTag(name)
    slicer.mrmlScene.AddNode(composite)
    return node


def load_volume(path, properties=None):
    """Do what `slicer.util.loadVolume` does, without the application."""
    properties = properties or {}
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetSingleFile(bool(properties.get("singleFile")))
    kind = "Vector" if str(path).endswith((".png", ".jpg")) else "Scalar"
    name = properties.get("name", "volume")
    node = slicer.mrmlScene.AddNewNodeByClass(f"vtkMRML{kind}VolumeNode", name)
    if not storage.ReadData(node):
        slicer.mrmlScene.RemoveNode(node)
        raise RuntimeError(f"Failed to load node from file: {path}")
    slicer.mrmlScene.AddNode(storage)
    node.SetAndObserveStorageNodeID(storage.GetID())
    node.CreateDefaultDisplayNodes()
    if properties.get("show"):
        slicer.util.setSliceViewerLayers(background=node)
    return node


def slice_picture(view="Red", size=(384, 320), mm=384.0):
    """Return what Slicer's own slice logic shows in a view: uint8 array, (rows, columns, 3)."""
    scene = slicer.mrmlScene
    nodes = {
        kind: next(
            node for node in slicer.util.getNodesByClass(kind) if node.GetLayoutName() == view
        )
        for kind in ("vtkMRMLSliceNode", "vtkMRMLSliceCompositeNode")
    }
    node = nodes["vtkMRMLSliceNode"]
    node.SetDimensions(*size, 1)
    node.SetFieldOfView(mm, mm * size[1] / size[0], 1)
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLApplicationLogic(slicer.modules.logics.application)
    logic.SetMRMLScene(scene)
    logic.SetSliceNode(node)
    logic.SetSliceCompositeNode(nodes["vtkMRMLSliceCompositeNode"])
    logic.UpdatePipeline()
    producer = logic.GetImageDataConnection().GetProducer()
    producer.Update()
    scalars = producer.GetOutputDataObject(0).GetPointData().GetScalars()
    shown = numpy_support.vtk_to_numpy(scalars).reshape(size[1], size[0], -1)
    # What is transparent is black in a view.
    return (shown[::-1, :, :3] * (shown[::-1, :, 3:] / 255)).astype("uint8")
