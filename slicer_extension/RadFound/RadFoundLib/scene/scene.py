"""Access to Slicer's scene: volumes, regions, evidence maps and texts.

Called on the main thread only. World coordinates are mapped to the volume's own RAS, so that the
server gets the same volume with or without a parent transform.
"""

import json
import os
import re
from typing import Any, Optional

import numpy as np
import slicer
import vtk

from ..net.errors import ClientError
from ..translation import _
from .evidencemap import EvidenceMap
from .volumefile import VolumeContent

CORRECTION_ATTRIBUTE = "RadFound.Correction"
EVIDENCE_ATTRIBUTE = "RadFound.EvidenceOf"
LAYERS_ATTRIBUTE = "RadFound.LayersBefore"
TEXT_ATTRIBUTE = "RadFound.MapOf"
STRONGEST_ATTRIBUTE = "RadFound.StrongestPlace"
ANSWER_ATTRIBUTE = "RadFound.Answer"
CONVERSATION_ATTRIBUTE = "RadFound.Conversation"
_VOLUME_ROLE = "RadFoundVolume"

_COLOUR_TABLE = "RadFound evidence"
_COLOURS = 256
# Evidence below this share of its maximum is transparent.
_SHOWN_FROM = 0.15


# Volumes --------------------------------------------------------------------------------------


def content_of(volume: Any) -> VolumeContent:
    """Return a volume node's voxels and geometry; ClientError "request" if it cannot be sent."""
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
    """Return a value that changes whenever the result of `content_of` changes."""
    image = volume.GetImageData()
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    geometry = tuple(slicer.util.arrayFromVTKMatrix(matrix).ravel())
    return (image.GetMTime() if image is not None else None, geometry)


def volumes() -> list:
    """Return the volumes of the scene that can be asked about: no label maps, and none that is hidden."""
    return [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if not node.GetHideFromEditors() and not node.IsA("vtkMRMLLabelMapVolumeNode")
    ]


def describe(volume: Any) -> str:
    """Return size and spacing in words, and the number among volumes of the same name."""
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
    """Load a downloaded study; ClientError "request" if Slicer cannot open it.

    The file is not needed afterwards: the voxels are saved with the scene.

    Parameters
    ----------
    path : str
        A file, or the first file of a DICOM series in its own folder.
    name : str
        Name of the new volume.
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
    # Otherwise Slicer counts the voxels as saved, and a saved scene refers to a deleted file.
    slicer.mrmlScene.RemoveNode(volume.GetStorageNode())
    return volume


def show_beside(volume: Any, prior: Any) -> None:
    """Show a prior volume in the second slice view, in the plane of the first and linked with it.

    ClientError "request" if the layout has one slice view only.
    """
    for layout in slicer.util.getNodesByClass("vtkMRMLLayoutNode"):
        layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
    nodes = slice_nodes()
    if len(nodes) < 2:
        raise ClientError(_("Choose a layout with two slice views first."), "request")
    composites = {node.GetLayoutName(): node for node in _composite_nodes()}
    first, second = nodes[:2]
    second.SetOrientation(first.GetOrientation())
    second.SetSliceOffset(first.GetSliceOffset())
    pair = [composites[node.GetLayoutName()] for node in (first, second)]
    for composite, shown in zip(pair, (volume, prior)):
        composite.SetLinkedControl(False)  # the background would spread to the other view
        composite.SetBackgroundVolumeID(shown.GetID())
    for composite in pair:
        composite.SetLinkedControl(True)


# Regions --------------------------------------------------------------------------------------


def slice_nodes() -> list:
    """Return the slice nodes of the views that the layout shows."""
    return [
        node for node in slicer.util.getNodesByClass("vtkMRMLSliceNode") if node.IsMappedInLayout()
    ]


def view_names() -> list:
    """Return the names of the layout's slice views."""
    return [node.GetLayoutName() for node in slice_nodes()]


def slice_node(view: str) -> Any:
    """Return the slice node of a view that the layout shows, such as Red, or None."""
    for node in slice_nodes():
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
    """Return a markups ROI's bounding box along the volume's RAS axes."""
    half = np.array(roi.GetSize()) / 2
    if not half.all():
        raise ClientError(_("The region of interest has no size: place it first."), "request")
    corners = np.array([[x, y, z, 1.0] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * (
        *half,
        1.0,
    )
    world = corners @ slicer.util.arrayFromVTKMatrix(roi.GetObjectToWorldMatrix()).T
    return bounds_in_volume(volume, world[:, :3])


def bounds_in_volume(volume: Any, corners: np.ndarray) -> dict:
    """Return the box around world points, shape (N, 3), along the volume's RAS axes."""
    points = _to_volume(volume, corners)
    return {"box_mm": [points.min(axis=0).tolist(), points.max(axis=0).tolist()]}


def place_roi(volume: Any, roi: Any) -> None:
    """Centre a new ROI where the slice views meet, a quarter of the volume wide."""
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    low, high = np.array(bounds[::2]), np.array(bounds[1::2])
    planes = [slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()) for node in slice_nodes()]
    center = (low + high) / 2
    if planes:
        normals = np.array([plane[:3, 2] for plane in planes])
        offsets = [plane[:3, 2] @ plane[:3, 3] for plane in planes]
        meeting, _residuals, rank, _values = np.linalg.lstsq(normals, offsets, rcond=None)
        if rank == 3:
            center = meeting
    roi.SetCenter(np.clip(center, low, high))
    roi.SetSize((high - low) / 4)


def _to_volume(volume: Any, points: np.ndarray) -> np.ndarray:
    """Map world points, shape (N, 3), to the RAS of the volume's own matrix."""
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


def show_evidence(volume: Any, found: EvidenceMap, opacity: float = 0.5, text: str = "") -> Any:
    """Lay an evidence map over the volume and return its node.

    Only views with this volume in the background change; if there are none, all views of the
    layout show it. `remove_evidence` restores what they showed.

    Parameters
    ----------
    volume : vtkMRMLScalarVolumeNode
    found : EvidenceMap
    opacity : float
        From 0 to 1.
    text : str
        What the map is of, such as a sentence; `evidence_text` returns it.
    """
    remove_evidence()
    name = _("Evidence in {volume}").format(volume=volume.GetName())
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    node.SetAttribute(EVIDENCE_ATTRIBUTE, volume.GetID())
    node.SetAttribute(TEXT_ATTRIBUTE, text)
    node.SetAttribute(STRONGEST_ATTRIBUTE, json.dumps(found.strongest))
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    # Before the voxels, whose histogram Slicer would compute for a new display node.
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    highest = max(found.highest, 1e-12)
    display.SetAndObserveColorNodeID(_colour_table().GetID())
    display.SetWindowLevelMinMax(0.0, highest)
    display.SetThreshold(_SHOWN_FROM * highest, highest)
    display.SetApplyThreshold(True)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(found.affine))
    node.SetAndObserveImageData(found.image)
    views = _composite_nodes()
    showing = [view for view in views if view.GetBackgroundVolumeID() == volume.GetID()] or views
    before = {view.GetID(): _layers_of(view) for view in showing}
    node.SetAttribute(LAYERS_ATTRIBUTE, json.dumps(before))
    for view in showing:
        _set_layers(view, {"background": volume.GetID(), "foreground": node.GetID()})
        view.SetForegroundOpacity(opacity)
    return node


def evidence_node() -> Any:
    """Return the node of the evidence map in the scene, or None."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node.GetAttribute(EVIDENCE_ATTRIBUTE):
            return node
    return None


def evidence_text() -> str:
    """Return what the map in the scene is of; empty if there is none."""
    node = evidence_node()
    return (node.GetAttribute(TEXT_ATTRIBUTE) or "") if node is not None else ""


def set_evidence_opacity(opacity: float) -> None:
    """Set the opacity of the map over the volume, from 0 to 1."""
    node = evidence_node()
    for view in _views_with(node) if node is not None else ():
        view.SetForegroundOpacity(opacity)


def jump_to_strongest(node: Any) -> Optional[list]:
    """Move the views with the map to its maximum; return it in world RAS, or None if uniform."""
    ijk = json.loads(node.GetAttribute(STRONGEST_ATTRIBUTE) or "null")
    if ijk is None:
        return None
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    ras = (slicer.util.arrayFromVTKMatrix(matrix) @ [*ijk, 1.0])[:3]
    parent = node.GetParentTransformNode()
    if parent is not None:
        ras = _through(parent, ras[None], from_world=False)[0]
    place = [float(part) for part in ras]
    shown_in = {view.GetLayoutName() for view in _views_with(node)}
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        if view.GetLayoutName() in shown_in:
            view.JumpSlice(*place)
    return place


def remove_evidence() -> None:
    """Remove the evidence map from the scene; its views show again what they showed before."""
    node = evidence_node()
    while node is not None:
        before = json.loads(node.GetAttribute(LAYERS_ATTRIBUTE) or "{}")
        for view in _views_with(node):
            _set_layers(view, before.get(view.GetID(), {"foreground": None}))
        slicer.mrmlScene.RemoveNode(node)
        node = evidence_node()


def _composite_nodes() -> list:
    """Return the nodes that hold the layers of the layout's slice views."""
    names = {node.GetLayoutName() for node in slice_nodes()}
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return [node for node in nodes if node.GetLayoutName() in names]


def _views_with(evidence: Any) -> list:
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return [node for node in nodes if node.GetForegroundVolumeID() == evidence.GetID()]


def _layers_of(view: Any) -> dict:
    return {
        "background": view.GetBackgroundVolumeID(),
        "foreground": view.GetForegroundVolumeID(),
        "opacity": view.GetForegroundOpacity(),
    }


def _set_layers(view: Any, layers: dict) -> None:
    """Set the layers of a view; a volume that has left the scene is not shown again."""

    def known(node_id: Optional[str]) -> Optional[str]:
        return node_id if node_id and slicer.mrmlScene.GetNodeByID(node_id) is not None else None

    # In linked views, the change would spread to views of other volumes.
    is_linked = view.GetLinkedControl()
    view.SetLinkedControl(False)
    if "background" in layers:
        view.SetBackgroundVolumeID(known(layers["background"]))
    view.SetForegroundVolumeID(known(layers["foreground"]))
    if "opacity" in layers:
        view.SetForegroundOpacity(layers["opacity"])
    view.SetLinkedControl(is_linked)


def evidence_colour(share: float) -> tuple:
    """Return red, green and blue, from 0 to 1, of a share of the map's maximum."""
    red = min(1.0, 0.25 + 1.3 * share)
    green = min(1.0, max(0.0, 1.45 * share - 0.35))
    blue = 0.45 * (1 - share) ** 2 + 0.6 * max(0.0, share - 0.6)
    return red, green, blue


def _colour_table() -> Any:
    """Return the colour table for evidence: from violet through orange to pale yellow."""
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
        table.SetColor(index, f"{share:.2f}", *evidence_colour(share), 1.0)
    return slicer.mrmlScene.AddNode(table)


# Texts ----------------------------------------------------------------------------------------


def save_text(volume: Any, name: str, text: str, answer_id: str = "") -> Any:
    """Save a text in the scene, under the volume in the subject hierarchy.

    Returns the text node; the node of an answer that was saved before is updated.
    """
    node = None
    for text_node in slicer.util.getNodesByClass("vtkMRMLTextNode"):
        if answer_id and text_node.GetAttribute(ANSWER_ATTRIBUTE) == answer_id:
            node = text_node
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", name)
        node.SetAttribute(ANSWER_ATTRIBUTE, answer_id)
    node.SetText(text)
    _put_under(volume, node)
    return node


def save_conversation(volume: Any, text: str) -> Any:
    """Keep a conversation with the scene, under its volume; an earlier one is replaced."""
    node = conversation_node(volume)
    if node is None:
        name = _("RadFound: conversation about {volume}").format(volume=volume.GetName())
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", name)
        node.SetAttribute(CONVERSATION_ATTRIBUTE, "1")
        node.SetNodeReferenceID(_VOLUME_ROLE, volume.GetID())
    node.SetText(text)
    _put_under(volume, node)
    return node


def conversation_node(volume: Any) -> Any:
    """Return the node that keeps a volume's conversation, or None."""
    for node in slicer.util.getNodesByClass("vtkMRMLTextNode"):
        if (
            node.GetAttribute(CONVERSATION_ATTRIBUTE)
            and node.GetNodeReference(_VOLUME_ROLE) is volume
        ):
            return node
    return None


def mark_correction(volume: Any, node: Any, correction_id: str) -> None:
    """Tag a marked place with its correction, and put it under the volume."""
    node.SetAttribute(CORRECTION_ATTRIBUTE, correction_id)
    _put_under(volume, node)


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
    """Return a file name from a volume's name, with safe characters only."""
    plain = re.sub(r"[^\w.-]+", "_", volume.GetName() or "study").strip("._") or "study"
    return f"{plain}_{ending}"
