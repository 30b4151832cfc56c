"""What the panel takes from Slicer's scene, and what it puts there.

Called on the main thread only. World coordinates are turned into those of the volume itself,
so that a volume under a transform is the same volume to the server.
"""

import os
import re
import tempfile
from typing import Any, Optional

import numpy as np
import slicer
import vtk

from ..net.errors import ClientError
from ..translation import _
from .volumefile import VolumeContent

CORRECTION_ATTRIBUTE = "RadFound.Correction"
EVIDENCE_ATTRIBUTE = "RadFound.EvidenceOf"
ANSWER_ATTRIBUTE = "RadFound.Answer"

_COLOUR_TABLE = "RadFound evidence"
_COLOURS = 256
# Below this share of the strongest evidence nothing is drawn.
_SHOWN_FROM = 0.15


# Volumes --------------------------------------------------------------------------------------


def content_of(volume: Any) -> VolumeContent:
    """Return what a volume node holds; ClientError "request" if it cannot be sent."""
    image = volume.GetImageData() if volume is not None else None
    if image is None or not image.GetNumberOfPoints() or not image.GetNumberOfScalarComponents():
        raise ClientError(_("The volume is empty: load or choose another one."), "request")
    try:
        voxels = slicer.util.arrayFromVolume(volume)
    except (RuntimeError, AttributeError) as error:
        raise ClientError(
            _("This kind of volume cannot be sent: expected voxels with one value or a colour."),
            "request",
        ) from error
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return VolumeContent(voxels, slicer.util.arrayFromVTKMatrix(matrix))


def state_of(volume: Any) -> tuple:
    """Return what changes whenever `content_of` would give something else."""
    image = volume.GetImageData()
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    geometry = tuple(slicer.util.arrayFromVTKMatrix(matrix).ravel())
    return (image.GetMTime() if image is not None else None, geometry)


def describe(volume: Any) -> str:
    """Return size and spacing in words, and which of several volumes of one name it is."""
    if volume is None or volume.GetImageData() is None:
        return ""
    size = " × ".join(str(count) for count in volume.GetImageData().GetDimensions())
    spacing = " × ".join(f"{step:.2f}" for step in volume.GetSpacing())
    text = _("{size} voxels of {spacing} mm").format(size=size, spacing=spacing)
    same = [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLVolumeNode")
        if node.GetName() == volume.GetName() and not node.GetHideFromEditors()
    ]
    if len(same) > 1:
        place = [node.GetID() for node in same].index(volume.GetID()) + 1
        text += _("; number {place} of {count} volumes of this name").format(
            place=place, count=len(same)
        )
    return text


def load_volume(path: str, name: str) -> Any:
    """Load what came from a server; ClientError "request" if Slicer cannot read it.

    The file is not needed afterwards: the scene will be saved with the voxels.

    Parameters
    ----------
    path : str
        A file, or the first one of a DICOM series that has a folder of its own.
    name : str
        Of the new volume.
    """
    try:
        volume = slicer.util.loadVolume(path, {"name": name, "singleFile": False, "show": True})
    except RuntimeError as error:
        raise ClientError(
            _(
                "Slicer cannot open this study ({file}): load its original files with the module DICOM."
            ).format(file=os.path.basename(path)),
            "request",
        ) from error
    # Else Slicer takes the voxels for saved, and a saved scene points to a file that is gone.
    slicer.mrmlScene.RemoveNode(volume.GetStorageNode())
    return volume


# Regions --------------------------------------------------------------------------------------


def slice_node(view: str) -> Any:
    """Return the slice node of a view such as Red, or None."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        if node.GetLayoutName() == view:
            return node
    return None


def slice_region(volume: Any, node: Any) -> dict:
    """Return the plane that a slice view shows, in the volume's RAS."""
    to_ras = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
    origin, across, down = to_ras[:3, 3], to_ras[:3, 0], to_ras[:3, 1]
    points = _to_volume(volume, np.array([origin, origin + across, origin + down]))
    normal = np.cross(points[1] - points[0], points[2] - points[0])
    normal = normal / np.linalg.norm(normal)
    return {"slice_mm": {"point": points[0].tolist(), "normal": normal.tolist()}}


def roi_region(volume: Any, roi: Any) -> dict:
    """Return the box along the volume's RAS axes that holds a markups ROI."""
    half = np.array(roi.GetSize()) / 2
    if not half.all():
        raise ClientError(_("The region of interest has no size: place it first."), "request")
    corners = np.array([[x, y, z, 1.0] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * (
        *half,
        1.0,
    )
    world = corners @ slicer.util.arrayFromVTKMatrix(roi.GetObjectToWorldMatrix()).T
    points = _to_volume(volume, world[:, :3])
    return {"box_mm": [points.min(axis=0).tolist(), points.max(axis=0).tolist()]}


def place_roi(volume: Any, roi: Any) -> None:
    """Put a new ROI where the slice views meet, a quarter of the volume wide."""
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    low, high = np.array(bounds[::2]), np.array(bounds[1::2])
    planes = [
        slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
        for node in map(slice_node, ("Red", "Yellow", "Green"))
        if node is not None
    ]
    normals = np.array([plane[:3, 2] for plane in planes])
    try:
        center = np.linalg.solve(normals, [plane[:3, 2] @ plane[:3, 3] for plane in planes])
    except np.linalg.LinAlgError:  # fewer than three views, or two that show the same plane
        center = (low + high) / 2
    roi.SetCenter(np.clip(center, low, high))
    roi.SetSize((high - low) / 4)


def _to_volume(volume: Any, points: np.ndarray) -> np.ndarray:
    """Turn world points, shape (N, 3), into the RAS that the volume's own matrix speaks of."""
    parent = volume.GetParentTransformNode()
    if parent is None:
        return points
    return _through(parent, points, from_world=True)


def _through(parent: Any, points: np.ndarray, from_world: bool) -> np.ndarray:
    transform = vtk.vtkGeneralTransform()
    if from_world:
        parent.GetTransformFromWorld(transform)
    else:
        parent.GetTransformToWorld(transform)
    return np.array([transform.TransformPoint(*point) for point in points])


# Evidence -------------------------------------------------------------------------------------


def show_evidence(volume: Any, nrrd: bytes) -> Any:
    """Lay an evidence map over the volume in every slice view and return its node.

    Parameters
    ----------
    volume : vtkMRMLScalarVolumeNode
    nrrd : bytes
        A map of values from 0, in the volume's RAS.
    """
    remove_evidence()
    name = _("Evidence in {volume}").format(volume=volume.GetName())
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    node.SetAttribute(EVIDENCE_ATTRIBUTE, volume.GetID())
    try:
        _read_nrrd(nrrd, node)
    except ClientError:
        slicer.mrmlScene.RemoveNode(node)
        raise
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    highest = max(float(slicer.util.arrayFromVolume(node).max()), 1e-12)
    display.SetAndObserveColorNodeID(_colour_table().GetID())
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0.0, highest)
    display.SetThreshold(_SHOWN_FROM * highest, highest)
    display.SetApplyThreshold(True)
    slicer.util.setSliceViewerLayers(background=volume, foreground=node)
    return node


def evidence_node() -> Any:
    """Return the evidence map that is shown, or None."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node.GetAttribute(EVIDENCE_ATTRIBUTE):
            return node
    return None


def set_evidence_opacity(opacity: float) -> None:
    """Set how strongly the map covers the volume, from 0 to 1."""
    if evidence_node() is not None:
        slicer.util.setSliceViewerLayers(foregroundOpacity=opacity)


def jump_to_strongest(node: Any) -> Optional[list]:
    """Let all slice views show the strongest place; return it in world RAS, or None if flat."""
    values = slicer.util.arrayFromVolume(node)
    strongest = np.argwhere(values == values.max())
    if len(strongest) == values.size:
        return None
    ijk = strongest[len(strongest) // 2][::-1]
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    ras = (slicer.util.arrayFromVTKMatrix(matrix) @ [*ijk, 1.0])[:3]
    parent = node.GetParentTransformNode()
    if parent is not None:
        ras = _through(parent, ras[None], from_world=False)[0]
    place = [float(part) for part in ras]
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *place)
    return place


def remove_evidence() -> None:
    """Take the evidence map out of the views and the scene."""
    node = evidence_node()
    while node is not None:
        slicer.util.setSliceViewerLayers(foreground=None)
        slicer.mrmlScene.RemoveNode(node)
        node = evidence_node()


def _read_nrrd(content: bytes, node: Any) -> None:
    storage = slicer.vtkMRMLNRRDStorageNode()
    with tempfile.TemporaryDirectory(prefix="radfound-") as folder:
        path = os.path.join(folder, "evidence.nrrd")
        with open(path, "wb") as file:
            file.write(content)
        storage.SetFileName(path)
        is_read = content.startswith(b"NRRD") and storage.ReadData(node)
    if not is_read or node.GetImageData() is None:
        raise ClientError(
            _("The server sent an evidence map that cannot be read; tell who runs it."), "protocol"
        )


def _colour_table() -> Any:
    """Return the table for evidence: from deep violet by orange to pale yellow."""
    for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode"):
        if node.GetName() == _COLOUR_TABLE:
            return node
    table = slicer.vtkMRMLColorTableNode()
    table.SetName(_COLOUR_TABLE)
    table.SetTypeToUser()
    table.SetHideFromEditors(True)
    table.SetSaveWithScene(False)
    table.SetNumberOfColors(_COLOURS)
    for index in range(_COLOURS):
        share = index / (_COLOURS - 1)
        red = min(1.0, 0.25 + 1.3 * share)
        green = min(1.0, max(0.0, 1.45 * share - 0.35))
        blue = 0.45 * (1 - share) ** 2 + 0.6 * max(0.0, share - 0.6)
        table.SetColor(index, f"{share:.2f}", red, green, blue, 1.0)
    return slicer.mrmlScene.AddNode(table)


# Texts ----------------------------------------------------------------------------------------


def save_text(volume: Any, name: str, text: str, answer_id: str = "") -> Any:
    """Keep a text in the scene, under the volume in the subject hierarchy.

    An answer that was saved before is written anew; returns the text node.
    """
    node = None
    for each in slicer.util.getNodesByClass("vtkMRMLTextNode"):
        if answer_id and each.GetAttribute(ANSWER_ATTRIBUTE) == answer_id:
            node = each
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", name)
        node.SetAttribute(ANSWER_ATTRIBUTE, answer_id)
    node.SetText(text)
    _put_under(volume, node)
    return node


def mark_correction(volume: Any, roi: Any, correction_id: str) -> None:
    """Keep a region with the correction that it belongs to, under the volume."""
    roi.SetAttribute(CORRECTION_ATTRIBUTE, correction_id)
    _put_under(volume, roi)


def _put_under(volume: Any, node: Any) -> None:
    """Place a node under a volume in the subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    parent = hierarchy.GetItemByDataNode(volume) or hierarchy.CreateItem(
        hierarchy.GetSceneItemID(), volume
    )
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)


def file_name_for(volume: Any, ending: str) -> str:
    """Return a file name made of a volume's name, without what file systems dislike."""
    plain = re.sub(r"[^\w.-]+", "_", volume.GetName() or "study").strip("._") or "study"
    return f"{plain}_{ending}"
