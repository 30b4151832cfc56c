"""Images and labels, under MONAI Label's addresses and with its parameters.

MONAI Label saves before it validates. These routes validate first, so an invalid request leaves the
earlier label and correction in place.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fastapi import APIRouter, BackgroundTasks, Depends, File, Form, UploadFile
from fastapi.responses import FileResponse
from monailabel.config import settings
from monailabel.endpoints import datastore
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.utils.app import app_instance

from radfound.correction import Correction
from radfound.exceptions import CorrectionError, RequestError, StudyTooLargeError
from radfound.wire import correction_from_json

from ..studies.datastore import is_dicom_by_another_name, split_name
from ..studies.sessions import StudySessions
from ..studies.uploads import PREFIX, received
from .fields import file_name, json_object

router = APIRouter(prefix="/datastore", tags=["Datastore"])
sessions = APIRouter(prefix="/session", tags=["Session"])

MAX_LABEL_BYTES = 16 << 20

_ADMIN = RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN)
_USER = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)
_ANNOTATOR = RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR)


@router.put("/", include_in_schema=False, deprecated=True)
@router.put("/image", summary="Upload an image")
def add_image(
    image: str | None = None,
    params: str = Form("{}"),
    file: UploadFile = File(...),
    user: User = Depends(_ANNOTATOR),
) -> dict[str, Any]:
    """Add an image to the datastore under the id `image`, by default its file's name."""
    info = {**json_object("params", params), "user": user.username}
    name = file_name("file", file)
    store = app_instance().datastore()
    store.check_name(image or "", name)
    with received(name, file.file) as path:
        return {"image": store.add_image(image or split_name(name)[0], str(path), info)}


@router.get("/image", summary="Download an image")
def download_image(
    background_tasks: BackgroundTasks, image: str, user: User = Depends(_USER)
) -> Any:
    """Return an image's file: a DICOM folder as a zip, a DICOM file of any name as .dcm."""
    store = app_instance().datastore()
    paths = store.parts(image).paths
    path = paths[0]
    if not (path.is_dir() or is_dicom_by_another_name(path)):
        return datastore.download_image(image)
    if path.is_file():
        name = f"{split_name(path.name)[0]}.dcm"
        return FileResponse(path, media_type="application/dicom", filename=name)
    packed = _packed(paths)
    background_tasks.add_task(packed.unlink)
    name = path.name if len(paths) == 1 else image
    return FileResponse(packed, media_type="application/zip", filename=f"{name}.zip")


@router.delete("/", include_in_schema=False, deprecated=True)
@router.delete("/image", summary="Remove an uploaded image and its labels")
def remove_image(id: str, user: User = Depends(_ADMIN)) -> dict[str, Any]:
    """Remove an upload; MONAI Label would follow links and remove originals too."""
    return datastore.remove_image(id, user.username)


@router.delete("/label", summary="Remove a label")
def remove_label(id: str, tag: str, user: User = Depends(_ADMIN)) -> dict[str, Any]:
    """Remove a label, without blocking the event loop as MONAI Label does."""
    return datastore.remove_label(id, tag, user.username)


@router.get("/dataset", summary="Download the labelled images as a zip")
def download_dataset(
    background_tasks: BackgroundTasks,
    limit_cases: int | None = None,
    user: User = Depends(_ANNOTATOR),
) -> FileResponse:
    """Return images, labels and their metadata; MONAI Label would leave the zip on the disk."""
    packed = Path(app_instance().datastore().get_dataset_archive(limit_cases))
    background_tasks.add_task(packed.unlink)
    return FileResponse(packed, media_type="application/zip", filename="dataset.zip")


@router.put("/image/info", summary="Update an image's metadata")
def update_image_info(image: str, info: str = Form("{}"), user: User = Depends(_ANNOTATOR)) -> Any:
    """Update an image's entry in the datastore's index."""
    json_object("info", info)
    return datastore.update_image_info(image, info, user.username)


@router.put("/label/info", summary="Update a label's metadata")
def update_label_info(
    label: str, tag: str, info: str = Form("{}"), user: User = Depends(_ANNOTATOR)
) -> Any:
    """Update a label's entry in the datastore's index."""
    json_object("info", info)
    return datastore.update_label_info(label, tag, info, user.username)


@router.put("/updatelabelinfo", include_in_schema=False, deprecated=True)
def update_label_info_as_before(
    label: str, tag: str, params: str = Form("{}"), user: User = Depends(_ANNOTATOR)
) -> Any:
    """Do what `PUT /datastore/label/info` does, under its old name."""
    return update_label_info(label, tag, params, user)


@router.put("/label", summary="Save a label, or corrections as JSON")
def save_label(
    image: str,
    params: str = Form("{}"),
    tag: str = DefaultLabelTag.FINAL.value,
    label: UploadFile = File(...),
    user: User = Depends(_ANNOTATOR),
) -> dict[str, Any]:
    """Save a label; a `*.json` file holds corrections, which are recorded in the log first."""
    app = app_instance()
    tag = tag or DefaultLabelTag.FINAL.value
    info = json_object("params", params)
    app.datastore().check_label(image, tag, info)
    recorded: dict[str, Any] = {}
    if file_name("label", label).lower().endswith(".json"):
        corrections = _corrections_about(image, label)
        recorded = {"corrections": [correction.id for correction in corrections]}
        app.service.record(corrections)
        label.file.seek(0)
    with received(file_name("label", label), label.file, is_image=False) as path:
        saved = app.datastore().save_label(image, str(path), tag, info)
    return {**(app.on_save_label(image, saved) or {}), "image": image, "label": saved, **recorded}


@sessions.put("/", summary="Upload an image for a limited time")
def add_session(
    uncompress: bool = False,
    expiry: int = 0,
    files: list[UploadFile] = File(...),
    user: User = Depends(_USER),
) -> dict[str, Any]:
    """Keep files until the session expires; a zip stays packed, and several files are one study."""
    kept: StudySessions | None = app_instance().sessions()
    if kept is None:
        raise RequestError("session: sessions are turned off on this server")
    with ExitStack() as stack:
        is_image = len(files) == 1  # among several, some may be headers of others
        paths = [
            stack.enter_context(received(file_name("files", f), f.file, is_image=is_image))
            for f in files
        ]
        source = paths[0] if len(paths) == 1 else _together(paths)
        session, info = kept.add_session(str(source), max(expiry, 0))
    return {"session_id": session, "session_info": info.to_json()}


def _together(paths: list[Path]) -> Path:
    """Move files into one folder."""
    if len({path.name for path in paths}) != len(paths):
        raise RequestError("files: two of one name; give each its own")
    folder = Path(tempfile.mkdtemp(dir=paths[0].parent))
    for path in paths:
        path.rename(folder / path.name)
    return folder


def _packed(folders: Sequence[Path]) -> Path:
    """Pack the files of one or several folders into a temporary zip, which the caller removes."""
    number, name = tempfile.mkstemp(prefix=PREFIX, suffix=".zip")
    try:
        with os.fdopen(number, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for folder in folders:
                root = folder if len(folders) == 1 else folder.parent
                for path in sorted(folder.rglob("*")):
                    if path.is_file() and not path.name.startswith("."):
                        archive.write(path, path.relative_to(root))
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)


def _corrections_about(image: str, label: UploadFile) -> list[Correction]:
    """Parse the corrections of a label file: one, a list, or a list under "corrections"."""
    content = label.file.read(MAX_LABEL_BYTES + 1)
    if len(content) > MAX_LABEL_BYTES:
        raise StudyTooLargeError(f"label: more than {MAX_LABEL_BYTES >> 20} MB of corrections")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CorrectionError("label: not JSON; expected corrections in a *.json file") from error
    if isinstance(found, dict) and "corrections" in found:
        found = found["corrections"]
    rows = found if isinstance(found, list) else [found]
    if not rows:
        raise CorrectionError("corrections: an empty list; expected at least one")
    corrections = [correction_from_json(row) for row in rows]
    for correction in corrections:
        if image not in correction.images:
            raise CorrectionError("images: does not name the image that the label is saved for")
    if len({correction.id for correction in corrections}) != len(corrections):
        raise CorrectionError("id: the same for two corrections; give each its own")
    return corrections
