import itertools
import sys

import nibabel
import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from RadFoundLib.net.errors import ClientError
from RadFoundLib.scene import scene
from RadFoundLib.scene.evidencemap import EvidenceMap
from RadFoundLib.scene.volumefile import VolumeContent
from vtk.util.numpy_support import vtk_to_numpy

from radfound.reading import read_study
from radfound.study.region import Plane, region_to_json
from radfound.wire import parse_ask

from ..monailabel_app.conftest import write_dicom_series
from .standin.mrml import add_view, load_volume, new_scene, slice_picture

SHAPE = (7, 6, 5)  # i, j, k


@pytest.fixture(autouse=True)
def mrml(monkeypatch):
    monkeypatch.setattr(slicer, "modules", type(sys)("modules"), raising=False)
    monkeypatch.setattr(slicer.util, "loadVolume", load_volume)
    yield new_scene()
    slicer.mrmlScene.Clear(True)


def oblique(angle=0.4):
    c, s = np.cos(angle), np.sin(angle)
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([0.7, 0.9, 2.5])
    affine[:3, 3] = -113.25, 87.5, 412.75
    return affine


def flipped(signs):
    affine = np.diag([1.5 * signs[0], 0.5 * signs[1], 3.0 * signs[2], 1.0])
    affine[:3, 3] = 11, -22, 33
    return affine


def voxels_of(shape=SHAPE):
    return np.random.default_rng(1).integers(-1000, 1000, shape).astype(np.int16)


def nifti_in_slicer(folder, affine):
    path = folder / "volume.nii"
    nibabel.save(nibabel.Nifti1Image(voxels_of(), affine), path)
    return nibabel.load(path), load_volume(path)


def made_volume(affine=None, name="CT", shape=(5, 6, 7)):
    affine = oblique() if affine is None else affine
    return slicer.util.addVolumeFromArray(voxels_of(shape), affine, name)


def read_back(content, folder, is_compressed=False):
    """What the server makes of the file."""
    file = content.open_compressed() if is_compressed else content.open()
    with file:
        path = folder / "sent.nrrd"
        path.write_bytes(file.read())
    return read_study(path).images[0]


def ijk_to_world(volume, ijk):
    """By VTK's own arithmetic, not by that of the module."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    point = matrix.MultiplyPoint([*ijk, 1.0])[:3]
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        volume.GetParentTransformNode(), None, transform
    )
    return transform.TransformPoint(*point)


AFFINES = {
    "oblique": oblique(),
    "left-handed": oblique() @ np.diag([-1.0, 1, 1, 1]),
    **{f"flipped {signs}": flipped(signs) for signs in itertools.product((1, -1), repeat=3)},
    "axes swapped": np.array([[0, 0, 2.0, 5], [-0.5, 0, 0, 6], [0, 1.25, 0, 7], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_exported_geometry_is_what_nibabel_reads(affine, tmp_path):
    image, volume = nifti_in_slicer(tmp_path, affine)

    content = scene.content_of(volume)

    sent = read_back(content, tmp_path)
    np.testing.assert_array_equal(sent.affine, content.affine)
    # Slicer turns an axis of left-handed volumes around; so voxels are compared by their places.
    to_nibabels = np.rint(np.linalg.inv(image.affine) @ sent.affine)
    values = image.get_fdata()
    for ijk in itertools.product(*(range(n) for n in SHAPE)):
        there = (to_nibabels @ [*ijk, 1.0])[:3].astype(int)
        ours, theirs = sent.affine @ [*ijk, 1.0], image.affine @ [*there, 1.0]
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
        assert there.min() >= 0 and sent.voxels[ijk[::-1]] == values[tuple(there)]


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "float32", "float64"]
)
def test_voxels_of_every_type_arrive(dtype, tmp_path):
    voxels = np.arange(60).reshape(3, 4, 5).astype(dtype)
    volume = slicer.util.addVolumeFromArray(voxels, oblique())

    sent = read_back(scene.content_of(volume), tmp_path)

    np.testing.assert_array_equal(sent.voxels, voxels)


def test_a_compressed_file_holds_the_same_under_the_same_name(tmp_path):
    content = scene.content_of(made_volume())

    sent = read_back(content, tmp_path, is_compressed=True)

    np.testing.assert_array_equal(sent.voxels, read_back(content, tmp_path).voxels)
    np.testing.assert_array_equal(sent.affine, read_back(content, tmp_path).affine)


def test_a_colour_picture_can_be_sent(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 255, (1, 8, 9, 3)).astype(np.uint8)
    picture = slicer.util.addVolumeFromArray(voxels, None, "x-ray", "vtkMRMLVectorVolumeNode")

    sent = read_back(scene.content_of(picture), tmp_path)

    assert sent.voxels.shape == (1, 8, 9)


def test_the_digest_names_content_and_geometry_only():
    digest = scene.content_of(made_volume(name="one")).digest()

    assert scene.content_of(made_volume(name="two")).digest() == digest
    assert scene.content_of(made_volume(flipped((1, 1, 1)))).digest() != digest
    assert len(digest) == 64


def test_nothing_but_voxels_and_geometry_is_in_the_file():
    volume = made_volume(name="DOE^JANE")
    volume.SetAttribute("DICOM.instanceUIDs", "1.2.3")

    with scene.content_of(volume).open() as file:
        sent = file.read()

    assert b"DOE" not in sent and b"1.2.3" not in sent
    assert len(sent) == scene.content_of(volume).size


def test_content_that_is_held_does_not_change_when_the_volume_gets_other_voxels():
    volume = made_volume()
    content = scene.content_of(volume)
    digest = content.digest()

    slicer.util.updateVolumeFromArray(volume, np.zeros((50, 60, 70), np.int16))
    slicer.mrmlScene.RemoveNode(volume)

    assert content.digest() == digest


def test_the_state_changes_with_voxels_and_with_geometry():
    volume = made_volume()
    states = [scene.state_of(volume)]
    slicer.util.updateVolumeFromArray(volume, np.ones(volume.GetImageData().GetDimensions()[::-1]))
    states.append(scene.state_of(volume))
    volume.SetSpacing(1, 2, 3)
    states.append(scene.state_of(volume))

    assert len(set(states)) == 3
    assert scene.state_of(volume) == states[-1]


def test_an_empty_volume_is_refused_with_advice():
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")

    for volume in (None, empty):
        with pytest.raises(ClientError, match="load or choose another"):
            scene.content_of(volume)


def test_a_volume_without_extent_is_refused_with_advice():
    with pytest.raises(ClientError, match="check its spacing"):
        VolumeContent(np.zeros((2, 2, 2), np.uint8), np.diag([1.0, 1, 0, 1]))


def test_reading_can_be_given_up():
    from RadFoundLib.net.cancellation import Cancellation

    cancel = Cancellation()
    cancel.set()
    content = scene.content_of(made_volume())

    for do in (content.digest, content.open_compressed):
        with pytest.raises(ClientError) as caught:
            do(cancel=cancel)
        assert caught.value.kind == "cancelled"


def test_two_volumes_of_one_name_are_told_apart():
    first, second, other = made_volume(name="CT"), made_volume(name="CT"), made_volume(name="MR")

    assert "number 1 of 2" in scene.describe(first)
    assert "number 2 of 2" in scene.describe(second)
    assert scene.describe(other) == "7 × 6 × 5 voxels of 0.70 × 0.90 × 2.50 mm"


# Regions


def moved(volume, *, turn=0.3, shift=(10, -20, 30)):
    """Put a volume under a transform; its own geometry stays."""
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    matrix[:3, 3] = shift
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    return matrix


def roi_around(center, size):
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    roi.SetCenter(center)
    roi.SetSize(size)
    return roi


def test_a_box_along_the_axes_is_the_region():
    region = scene.roi_region(made_volume(), roi_around((10, 20, 30), (4, 6, 8)))

    np.testing.assert_allclose(region["box_mm"], [[8, 17, 26], [12, 23, 34]])


def test_a_turned_box_is_held_by_the_region():
    roi = roi_around((0, 0, 0), (20, 2, 2))
    turn = np.eye(4)
    turn[:2, :2] = [[0, -1], [1, 0]]
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(turn))
    roi.SetAndObserveTransformNodeID(transform.GetID())

    region = scene.roi_region(made_volume(), roi)

    np.testing.assert_allclose(region["box_mm"], [[-1, -10, -1], [1, 10, 1]], atol=1e-9)


def test_a_region_follows_the_volume_out_of_its_transform():
    volume = made_volume(flipped((1, 1, 1)))
    moved(volume)
    center = ijk_to_world(volume, (3, 2, 1))

    box = np.array(scene.roi_region(volume, roi_around(center, (0.2, 0.2, 0.2)))["box_mm"])

    inside = flipped((1, 1, 1)) @ [3, 2, 1, 1]
    np.testing.assert_allclose(box.mean(axis=0), inside[:3], atol=1e-6)


def test_an_unplaced_box_is_refused_with_advice():
    with pytest.raises(ClientError, match="place it first"):
        scene.roi_region(made_volume(), roi_around((0, 0, 0), (0, 0, 0)))


def test_a_new_box_is_placed_where_the_views_meet_and_inside_the_volume():
    volume = made_volume(np.diag([2.0, 2, 2, 1]), shape=(20, 20, 20))
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    for place, center in (((8, 20, 30), (8, 20, 30)), ((0, 0, 1000), (0, 0, 39))):
        scene.slice_node("Red").JumpAllSlices(slicer.mrmlScene, *place)

        scene.place_roi(volume, roi)

        np.testing.assert_allclose(roi.GetCenter(), center)
        np.testing.assert_allclose(roi.GetSize(), [10, 10, 10])


def test_without_views_a_new_box_is_placed_in_the_middle():
    for view in ("Red", "Green"):
        slicer.mrmlScene.RemoveNode(scene.slice_node(view))
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")

    scene.place_roi(made_volume(np.diag([2.0, 2, 2, 1]), shape=(20, 20, 20)), roi)

    np.testing.assert_allclose(roi.GetCenter(), [19, 19, 19])


@pytest.mark.parametrize(("view", "axis"), [("Red", 2), ("Yellow", 0), ("Green", 1)])
def test_a_slice_is_a_plane_through_what_the_view_shows(view, axis):
    node = scene.slice_node(view)
    node.JumpSliceByOffsetting(12.5, 12.5, 12.5)

    plane = scene.slice_region(made_volume(), node)["slice_mm"]

    assert plane["point"][axis] == pytest.approx(12.5)
    assert abs(plane["normal"][axis]) == pytest.approx(1)


def test_a_slice_of_a_moved_volume_goes_through_the_same_voxel():
    volume = made_volume()
    moved(volume)
    node = scene.slice_node("Red")
    node.JumpSliceByOffsetting(*ijk_to_world(volume, (3, 2, 1)))

    plane = scene.slice_region(volume, node)["slice_mm"]

    inside = (oblique() @ [3, 2, 1, 1])[:3]
    assert np.dot(inside - plane["point"], plane["normal"]) == pytest.approx(0, abs=1e-6)
    assert np.linalg.norm(plane["normal"]) == pytest.approx(1)


def test_the_server_reads_both_kinds_of_region():
    volume = made_volume()
    plane = scene.slice_region(volume, scene.slice_node("Red"))
    box = scene.roi_region(volume, roi_around((0, 0, 0), (1, 1, 1)))

    assert region_to_json(parse_ask({"region": box}).region) == box
    assert isinstance(parse_ask({"region": plane}).region, Plane)


def test_a_view_that_is_not_open_has_no_slice():
    assert scene.slice_node("Purple") is None


# Evidence


def evidence_of(volume, hot=(4, 1, 2)):
    """A map in the volume's geometry, strongest at one voxel."""
    values = np.zeros(volume.GetImageData().GetDimensions()[::-1], np.float32)
    values[tuple(reversed(hot))] = 0.8
    return EvidenceMap.of(values, scene.content_of(volume).affine)


@pytest.mark.parametrize("is_moved", [False, True])
def test_evidence_lies_on_the_volume(is_moved):
    volume = made_volume()
    if is_moved:
        moved(volume)

    node = scene.show_evidence(volume, evidence_of(volume))

    for ijk in ((0, 0, 0), (6, 5, 4), (4, 1, 2)):
        np.testing.assert_allclose(ijk_to_world(node, ijk), ijk_to_world(volume, ijk), atol=1e-5)
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        assert composite.GetForegroundVolumeID() == node.GetID()
        assert composite.GetBackgroundVolumeID() == volume.GetID()


def test_evidence_has_its_own_colours_and_hides_where_there_is_none():
    volume = made_volume()

    display = scene.show_evidence(volume, evidence_of(volume)).GetDisplayNode()

    assert display.GetColorNode().GetName() == "RadFound evidence"
    display.GetOutputImageDataConnection().GetProducer().Update()
    shown = display.GetOutputImageData()
    assert shown.GetScalarComponentAsDouble(4, 1, 2, 3) == 255
    assert shown.GetScalarComponentAsDouble(0, 0, 0, 3) == 0


def test_slicers_own_slice_view_shows_the_evidence_where_it_is():
    volume = made_volume(np.diag([4.0, 4, 4, 1]), shape=(20, 20, 20))
    plain = slice_picture_at(volume, (10, 10, 10))

    scene.show_evidence(volume, evidence_of(volume, hot=(13, 10, 10)))
    scene.set_evidence_opacity(1.0)
    covered = slice_picture_at(volume, (10, 10, 10))

    rows, columns = np.nonzero((plain != covered).any(axis=2))
    # One pixel is one mm; the view looks from the feet, so that the patient's right is left.
    assert abs(columns.mean() - (50 - 3 * 4)) < 2 and abs(rows.mean() - 50) < 2
    assert 16 <= len(rows) <= 64  # one voxel and what interpolation makes of it


def slice_picture_at(volume, ijk):
    slicer.util.setSliceViewerLayers(background=volume)
    center = ijk_to_world(volume, ijk)
    scene.slice_node("Red").JumpSliceByCentering(*center)
    return slice_picture(size=(100, 100), mm=100.0)


def test_evidence_is_not_saved_and_not_offered_as_a_volume():
    volume = made_volume()

    node = scene.show_evidence(volume, evidence_of(volume))

    assert not node.GetSaveWithScene()
    assert node.GetHideFromEditors()
    assert not node.GetDisplayNode().GetColorNode().GetSaveWithScene()


def test_the_views_jump_to_the_strongest_place():
    volume = made_volume()
    moved(volume)
    node = scene.show_evidence(volume, evidence_of(volume))

    place = scene.jump_to_strongest(node)

    np.testing.assert_allclose(place, ijk_to_world(volume, (4, 1, 2)), atol=1e-6)
    assert scene.slice_node("Red").GetSliceOffset() == pytest.approx(place[2])


def test_there_is_no_strongest_place_in_a_flat_map():
    volume = made_volume()
    flat = np.zeros((5, 6, 7), np.float32)
    found = EvidenceMap.of(flat, scene.content_of(volume).affine)
    node = scene.show_evidence(volume, found)

    assert scene.jump_to_strongest(node) is None


def test_opacity_reaches_every_view():
    volume = made_volume()
    scene.show_evidence(volume, evidence_of(volume))

    scene.set_evidence_opacity(0.25)

    opacities = [
        node.GetForegroundOpacity()
        for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    ]
    assert opacities == [0.25] * 3


def layers():
    return {
        node.GetLayoutName(): (
            node.GetBackgroundVolumeID(),
            node.GetForegroundVolumeID(),
            node.GetForegroundOpacity(),
        )
        for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    }


def composite(view):
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return next(node for node in nodes if node.GetLayoutName() == view)


def test_evidence_restores_what_lay_over_the_volume_before():
    volume, pet = made_volume(), made_volume(name="PET")
    slicer.util.setSliceViewerLayers(background=volume, foreground=pet, foregroundOpacity=0.4)
    before = layers()

    scene.show_evidence(volume, evidence_of(volume))
    scene.show_evidence(volume, evidence_of(volume, hot=(1, 1, 1)), opacity=0.7)
    assert composite("Red").GetForegroundOpacity() == pytest.approx(0.7)
    scene.set_evidence_opacity(0.9)
    scene.remove_evidence()

    assert layers() == before


def test_evidence_touches_only_the_views_that_show_its_volume():
    volume, prior = made_volume(), made_volume(name="prior")
    slicer.util.setSliceViewerLayers(background=volume)
    composite("Green").SetBackgroundVolumeID(prior.GetID())
    composite("Green").SetForegroundOpacity(0.2)
    for view in ("Red", "Yellow", "Green"):
        composite(view).SetLinkedControl(True)
    green, offset = layers()["Green"], scene.slice_node("Green").GetSliceOffset()

    node = scene.show_evidence(volume, evidence_of(volume))
    scene.set_evidence_opacity(1.0)
    scene.jump_to_strongest(node)

    assert layers()["Green"] == green
    assert scene.slice_node("Green").GetSliceOffset() == offset
    assert composite("Red").GetForegroundVolumeID() == node.GetID()
    assert composite("Red").GetLinkedControl()


def test_evidence_of_a_volume_that_no_view_shows_restores_the_other_volume():
    volume, other = made_volume(), made_volume(name="other")
    slicer.util.setSliceViewerLayers(background=other)
    before = layers()

    scene.show_evidence(volume, evidence_of(volume))
    assert composite("Red").GetBackgroundVolumeID() == volume.GetID()
    scene.remove_evidence()

    assert layers() == before


def test_a_layer_that_the_reader_has_changed_meanwhile_stays():
    volume, pet, later = made_volume(), made_volume(name="PET"), made_volume(name="later")
    slicer.util.setSliceViewerLayers(background=volume, foreground=pet)
    scene.show_evidence(volume, evidence_of(volume))
    composite("Red").SetForegroundVolumeID(later.GetID())
    slicer.mrmlScene.RemoveNode(pet)

    scene.remove_evidence()

    assert layers()["Red"][1] == later.GetID()
    assert layers()["Yellow"][:2] == (volume.GetID(), None)


def test_slices_of_further_views_can_be_chosen_and_closed_ones_are_not():
    compare = add_view("Compare1", "Sagittal")
    scene.slice_node("Red").SetMappedInLayout(False)

    assert scene.slice_node("Compare1") is compare
    assert scene.slice_node("Red") is None


def test_removed_evidence_leaves_nothing_and_the_volume_stays():
    volume = made_volume()
    slicer.util.setSliceViewerLayers(background=volume)
    scene.show_evidence(volume, evidence_of(volume))
    scene.show_evidence(volume, evidence_of(volume, hot=(1, 1, 1)))
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 2

    scene.remove_evidence()

    assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") == [volume]
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        assert composite.GetForegroundVolumeID() is None
        assert composite.GetBackgroundVolumeID() == volume.GetID()


def test_a_map_is_named_by_what_it_is_of():
    volume = made_volume()
    assert scene.evidence_text() == ""
    scene.show_evidence(volume, evidence_of(volume), text="No effusion.")
    assert scene.evidence_text() == "No effusion."
    scene.remove_evidence()
    assert scene.evidence_text() == ""


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_a_map_is_read_as_the_server_writes_it(kind):
    from radfound.study.evidence_map import nrrd_bytes

    voxels = np.arange(3 * 4 * 5, dtype=kind).reshape(3, 4, 5)
    affine = np.array(
        [[-1.5, 0.2, 0.0, 30.0], [0.1, -2.0, 0.3, -20.0], [0.0, 0.1, 3.0, 7.0], [0, 0, 0, 1]]
    )
    affine[:3, :3] = np.linalg.qr(affine[:3, :3])[0] @ np.diag([1.5, 2.0, 3.0])

    found = EvidenceMap.read(nrrd_bytes(voxels, affine))

    read = vtk_to_numpy(found.image.GetPointData().GetScalars())
    assert np.array_equal(read, voxels.ravel()) and found.image.GetDimensions() == (5, 4, 3)
    np.testing.assert_allclose(found.affine, affine, atol=1e-6)
    assert (found.highest, found.strongest) == (59.0, (4, 3, 2))


@pytest.mark.parametrize(
    "content",
    [b"", b"NRRD", b"<html>no</html>", b"NRRD0004\ntype: float\n\n", b"\xff\n\n"],
)
def test_a_map_that_is_none_is_refused(content):
    with pytest.raises(ClientError) as caught:
        EvidenceMap.read(content)

    assert caught.value.kind == "protocol"


def test_a_map_that_is_cut_off_is_refused():
    from radfound.study.evidence_map import nrrd_bytes

    whole = nrrd_bytes(np.arange(60, dtype=np.uint8).reshape(3, 4, 5), np.eye(4))
    with pytest.raises(ClientError):
        EvidenceMap.read(whole[:-20])


# Texts


def test_a_saved_text_lies_under_its_volume():
    volume = made_volume()

    node = scene.save_text(volume, "Report", "No effusion.\nΔ ≥ 3 mm", "answer-1")

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node)
    assert hierarchy.GetItemParent(item) == hierarchy.GetItemByDataNode(volume)
    assert node.GetText() == "No effusion.\nΔ ≥ 3 mm"
    assert hierarchy.GetItemName(item) == "Report"


def test_saving_an_answer_again_writes_it_anew():
    volume = made_volume()
    first = scene.save_text(volume, "Report", "one", "answer-1")

    second = scene.save_text(volume, "Report", "two", "answer-1")
    other = scene.save_text(volume, "Report", "three", "answer-2")

    assert first is second and other is not first
    assert first.GetText() == "two"


def test_a_text_whose_item_slicer_made_is_moved_under_its_volume():
    volume = made_volume()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    node = scene.save_text(volume, "Report", "one", "answer-1")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), hierarchy.GetSceneItemID())

    scene.save_text(volume, "Report", "two", "answer-1")

    parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
    assert parent == hierarchy.GetItemByDataNode(volume)


def test_names_of_files_hold_nothing_that_file_systems_dislike():
    volume = made_volume(name="CT/1: *thorax*")

    assert scene.file_name_for(volume, "report.txt") == "CT_1_thorax_report.txt"


# Files


def test_a_file_that_slicer_cannot_read_is_explained(tmp_path):
    (tmp_path / "x.nii").write_bytes(b"not a volume")

    with pytest.raises(ClientError, match="module DICOM"):
        scene.load_volume(str(tmp_path / "x.nii"), "x")


def test_a_downloaded_dicom_series_is_loaded_as_one_volume(tmp_path):
    write_dicom_series(tmp_path / "series", slices=3)

    volume = scene.load_volume(str(tmp_path / "series" / "IM0"), "series")

    expected = read_study(tmp_path / "series").images[0]
    assert volume.GetImageData().GetDimensions() == expected.voxels.shape[::-1]
    np.testing.assert_allclose(scene.content_of(volume).affine, expected.affine, atol=1e-5)


def test_a_downloaded_study_is_loaded_under_its_id(tmp_path):
    path = tmp_path / "radfound-abc.nii"
    nibabel.save(nibabel.Nifti1Image(voxels_of(), oblique()), path)

    volume = scene.load_volume(str(path), "sample_brain_mr")

    assert volume.GetName() == "sample_brain_mr"
    assert volume.GetStorageNode() is None
    assert not slicer.util.getNodesByClass("vtkMRMLStorageNode")
