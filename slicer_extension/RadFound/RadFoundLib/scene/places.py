"""Places that the reader marked: boxes, lines, points and segments; and what Slicer measures there."""

from typing import Any, Optional

import numpy as np
import slicer
import vtk

from ..net.errors import ClientError
from ..translation import _
from .scene import bounds_in_volume, roi_region

# Half the edge of the box around a point, and the least one of the box around a line.
_AROUND_A_POINT_MM = 10.0
_AROUND_A_LINE_MM = 2.0
_SEGMENTATION = "vtkMRMLSegmentationNode"
_ROI = "vtkMRMLMarkupsROINode"


def is_segmentation(node: Any) -> bool:
    """Whether a node holds segments."""
    return node is not None and bool(node.IsA(_SEGMENTATION))


def is_box(node: Any) -> bool:
    """Whether a node is a markups ROI."""
    return node is not None and bool(node.IsA(_ROI))


def segments_of(node: Any) -> list:
    """Return (name, id) of each segment of a segmentation; empty for other nodes."""
    if not is_segmentation(node):
        return []
    segmentation = node.GetSegmentation()
    ids = [
        segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments())
    ]
    return [(segmentation.GetSegment(each).GetName(), each) for each in ids]


def name_of(node: Any, segment: Optional[str] = None) -> str:
    """Return the name of a place for the reader."""
    names = {segment_id: name for name, segment_id in segments_of(node)}
    return f"{node.GetName()}: {names[segment]}" if segment in names else str(node.GetName())


def region_of(volume: Any, node: Any, segment: Optional[str] = None) -> dict:
    """Return the box around a place along the volume's RAS axes, as JSON for the server.

    Parameters
    ----------
    volume : vtkMRMLScalarVolumeNode
    node : vtkMRMLMarkupsROINode, vtkMRMLMarkupsNode or vtkMRMLSegmentationNode
        A line or points: the box around them, with a margin.
    segment : str, optional
        Id of the segment; required for a segmentation.

    Raises
    ------
    ClientError
        Of kind "request", if nothing has been placed or the segment is empty.
    """
    if is_box(node):
        return roi_region(volume, node)
    if is_segmentation(node):
        return bounds_in_volume(volume, _segment_corners(node, segment))
    points = slicer.util.arrayFromMarkupsControlPoints(node, world=True)
    if not len(points):
        raise ClientError(
            _("{name} has no points: place them in a slice view first.").format(
                name=node.GetName()
            ),
            "request",
        )
    margin = _AROUND_A_POINT_MM if len(points) == 1 else _AROUND_A_LINE_MM
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    return bounds_in_volume(volume, _corners(low, high))


def measured(volume: Any, node: Any, segment: str) -> str:
    """Return what Slicer's Segment Statistics measures of a segment, in words.

    The volume, the mean and standard deviation of the volume's values, and the longest diameter.
    """
    import SegmentStatistics

    logic = SegmentStatistics.SegmentStatisticsLogic()
    parameters = logic.getParameterNode()
    parameters.SetParameter("Segmentation", node.GetID())
    parameters.SetParameter("ScalarVolume", volume.GetID())
    parameters.SetParameter("LabelmapSegmentStatisticsPlugin.feret_diameter_mm.enabled", "True")
    logic.computeStatistics()
    found = logic.getStatistics()

    def value(plugin: str, key: str) -> Optional[float]:
        number = found.get((segment, f"{plugin}SegmentStatisticsPlugin.{key}"))
        return float(number) if number is not None else None

    facts = (
        (_("volume {value} cm³"), value("Labelmap", "volume_cm3"), 2),
        (_("mean {value}"), value("ScalarVolume", "mean"), 1),
        (_("standard deviation {value}"), value("ScalarVolume", "stdev"), 1),
        (_("longest diameter {value} mm"), value("Labelmap", "feret_diameter_mm"), 1),
    )
    words = [
        text.format(value=f"{number:.{digits}f}")
        for text, number, digits in facts
        if number is not None
    ]
    if not words:
        raise ClientError(_("The segment is empty: draw it first."), "request")
    names = {segment_id: name for name, segment_id in segments_of(node)}
    return _("{name}: {facts} (measured in Slicer, not by the model).").format(
        name=names.get(segment, segment), facts=", ".join(words)
    )


def _segment_corners(node: Any, segment: Optional[str]) -> np.ndarray:
    """Return the corners, in world RAS, of the voxels of a segment."""
    from vtk.util.numpy_support import vtk_to_numpy

    empty = ClientError(_("The segment is empty: draw it first."), "request")
    image = slicer.vtkOrientedImageData()
    if not segment or not node.GetBinaryLabelmapRepresentation(segment, image):
        raise empty
    low_i, high_i, low_j, high_j, low_k, high_k = image.GetExtent()
    scalars = image.GetPointData().GetScalars()
    if scalars is None or high_i < low_i:
        raise empty
    shape = (high_k - low_k + 1, high_j - low_j + 1, high_i - low_i + 1)
    voxels = np.argwhere(vtk_to_numpy(scalars).reshape(shape))
    if not len(voxels):
        raise empty
    start = np.array([low_i, low_j, low_k])
    low, high = voxels.min(axis=0)[::-1] + start - 0.5, voxels.max(axis=0)[::-1] + start + 0.5
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    corners = np.c_[_corners(low, high), np.ones(8)] @ slicer.util.arrayFromVTKMatrix(matrix).T
    parent = node.GetParentTransformNode()
    if parent is None:
        return corners[:, :3]
    transform = vtk.vtkGeneralTransform()
    parent.GetTransformToWorld(transform)
    return np.array([transform.TransformPoint(*point) for point in corners[:, :3]])


def _corners(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.array(
        [[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
    )
