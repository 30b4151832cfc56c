"""Where in a volume: boxes, lines, points, segments and slices; and what Slicer measures there."""

import numpy as np
import pytest
import slicer
import slicer.util
import vtk

from ..standin.mrml import add_view
from .desk import is_shown


def segmentation_of(volume, inside=(slice(2, 4), slice(3, 6), slice(5, 9)), name="lesion"):
    """A segmentation with one segment: the voxels `inside` (k, j, i) of the volume."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    image = slicer.vtkOrientedImageData()
    shape = slicer.util.arrayFromVolume(volume).shape
    image.SetDimensions(*shape[::-1])
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    image.SetImageToWorldMatrix(matrix)
    from vtk.util import numpy_support

    voxels = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
    voxels[:] = 0
    if inside is not None:
        voxels[inside] = 1
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.AddRepresentation("Binary labelmap", image)
    node.GetSegmentation().AddSegment(segment, name)
    return node


def markups(kind, *points):
    node = slicer.mrmlScene.AddNewNodeByClass(f"vtkMRMLMarkups{kind}Node", "mark")
    for point in points:
        node.AddControlPointWorld(vtk.vtkVector3d(*point))
    return node


def choose_region(desk, node):
    desk.ui.partBox.currentIndex = desk.ui.partBox.findData("region")
    desk.ui.roiSelector.setCurrentNode(node)


# The volume of the desk has voxels of (-2, -2, 3) mm, its first one at 0.
BOX_OF_THE_SEGMENT = {"box_mm": [[-17.0, -11.0, 4.5], [-9.0, -5.0, 10.5]]}


def test_a_segment_is_asked_about(desk):
    choose_region(desk, segmentation_of(desk.volume))
    assert is_shown(desk.ui.segmentBox) and desk.ui.segmentBox.currentText == "lesion"

    desk.ask()

    assert desk.server.asked[-1]["region"] == BOX_OF_THE_SEGMENT
    assert "in Segmentation: lesion" in desk.shown


def test_a_segment_under_a_transform_is_where_it_is_shown(desk):
    node = segmentation_of(desk.volume)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 100.0)
    transform.SetMatrixTransformToParent(matrix)
    for each in (desk.volume, node):
        each.SetAndObserveTransformNodeID(transform.GetID())
    choose_region(desk, node)

    desk.ask()

    np.testing.assert_allclose(
        desk.server.asked[-1]["region"]["box_mm"], BOX_OF_THE_SEGMENT["box_mm"]
    )


def test_an_empty_segment_is_explained(desk):
    choose_region(desk, segmentation_of(desk.volume, inside=None))

    desk.ui.captionButton.click()

    assert "The segment is empty" in desk.ui.askMessage.text
    assert not desk.panel.conversation.turns


def test_a_line_and_a_point_are_asked_about(desk):
    choose_region(desk, markups("Line", (-10, -4, 3), (-20, -8, 6)))
    desk.ask()
    assert desk.server.asked[-1]["region"] == {"box_mm": [[-22, -10, 1], [-8, -2, 8]]}

    choose_region(desk, markups("Fiducial", (-10, -4, 3)))
    desk.ask()
    assert desk.server.asked[-1]["region"] == {"box_mm": [[-20, -14, -7], [0, 6, 13]]}


def test_a_line_without_points_is_explained(desk):
    choose_region(desk, markups("Line"))

    desk.ui.captionButton.click()

    assert "has no points" in desk.ui.askMessage.text


def test_a_correction_says_where_by_a_segment(desk):
    desk.ask()
    desk.ui.whereSelector.setCurrentNode(segmentation_of(desk.volume))
    assert is_shown(desk.ui.whereSegmentBox) and not is_shown(desk.ui.whereSliceBox)

    desk.ui.rejectButton.click()
    desk.settle()

    assert desk.server.corrections[0]["region"] == BOX_OF_THE_SEGMENT
    assert desk.ui.whereSelector.currentNode() is None


def test_a_correction_says_where_by_the_current_slice(desk):
    from RadFoundLib.scene import scene

    desk.ask()
    scene.slice_node("Red").SetSliceOffset(6.0)
    desk.ui.whereSliceBox.currentIndex = desk.ui.whereSliceBox.findData("Red")

    desk.ui.rejectButton.click()
    desk.settle()

    assert desk.server.corrections[0]["region"]["slice_mm"]["point"][2] == pytest.approx(6.0)


def test_the_slices_of_the_layout_are_offered_and_no_others(desk):
    from RadFoundLib.scene import scene

    add_view("Compare1", "Sagittal")
    scene.slice_node("Yellow").SetMappedInLayout(False)
    desk.panel.study_section.show_volume()

    texts = [desk.ui.partBox.itemText(index) for index in range(desk.ui.partBox.count)]
    assert "Slice in view Compare1 (Sagittal)" in texts
    assert not any("Yellow" in text for text in texts)
    desk.ui.partBox.currentIndex = desk.ui.partBox.findData("slice:Compare1")
    desk.ask()
    assert abs(desk.server.asked[-1]["region"]["slice_mm"]["normal"][0]) == pytest.approx(1.0)


def test_a_saved_slice_of_a_closed_view_is_named_and_not_taken_for_the_whole(desk):
    desk.widget._parameters.part = "slice:Compare7"

    assert desk.ui.partBox.currentText == "Slice in view Compare7 (not open)"
    desk.ui.captionButton.click()
    assert "Compare7 view is not open" in desk.ui.askMessage.text


# Measured facts


def test_measured_facts_go_into_the_question_marked_as_measured(desk):
    choose_region(desk, segmentation_of(desk.volume))
    desk.ui.questionEdit.text = "Is this benign?"

    desk.ui.measureQuestionButton.click()

    inside = slicer.util.arrayFromVolume(desk.volume)[2:4, 3:6, 5:9]
    assert desk.ui.questionEdit.text == (
        f"Is this benign? lesion: volume 0.29 cm³, mean {inside.mean():.1f}, standard deviation "
        f"{inside.std():.1f}, longest diameter 12.5 mm (measured in Slicer, not by the model)."
    )


def test_measured_facts_go_into_the_report_marked_as_measured(desk):
    choose_region(desk, segmentation_of(desk.volume))
    desk.ui.measureReportButton.click()
    assert "write a report first" in desk.ui.askMessage.text
    desk.ui.reportButton.click()
    desk.settle()

    desk.ui.measureReportButton.click()

    turn = desk.panel.conversation.turns[-1]
    texts = [desk.ui.sentenceList.item(row).text() for row in range(desk.ui.sentenceList.count)]
    assert any(text.startswith("⌖  lesion: volume 0.29 cm³") for text in texts)
    assert "(measured in Slicer, not by the model)" in turn.draft.sections()["findings"]
    assert desk.ui.editButton.enabled


def test_there_is_nothing_to_measure_without_a_segment(desk):
    assert not is_shown(desk.ui.measureRow)
