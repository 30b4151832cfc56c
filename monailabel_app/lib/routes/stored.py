"""Images and labels, under MONAI Label's addresses and with its parameters.

MONAI Label saves first and looks later; here what is wrong is refused while the earlier label and
correction are still in place.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
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
from radfound.exceptions import CorrectionError, StudyTooLargeError
from radfound.wire import correction_from_json

from ..datastore import StudyDatastore, split_name
from .fields import file_name, json_object

router = APIRouter(prefix="/datastore", tags=["Datastore"])

MAX_LABEL_BYTES = 16 << 20

_USER = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)
_ANNOTATOR = RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR)


@router.put("/", include_in_schema=False, deprecated=True)
@router.put("/image", summary="Upload an image")
def add_image(
    background_tasks: BackgroundTasks,
    image: str | None = None,
    params: str = Form("{}"),
    file: UploadFile = File(...),
    user: User = Depends(_ANNOTATOR),
) -> dict[str, Any]:
    """Add an image to the datastore, under its file's name unless `image` says otherwise."""
    json_object("params", params)
    image = image or split_name(file_name("file", file))[0]
    added: dict[str, Any] = datastore.add_image(
        background_tasks, image, params, file, user.username
    )
    return added


@router.get("/image", summary="Download an image")
def download_image(
    background_tasks: BackgroundTasks, image: str, user: User = Depends(_USER)
) -> Any:
    """Return an image's file; a folder of DICOM files comes as a zip."""
    store = app_instance().datastore()
    path = store.path_of(image) if isinstance(store, StudyDatastore) else None
    if path is None or not path.is_dir():
        return datastore.download_image(image)
    packed = _packed(path)
    background_tasks.add_task(packed.unlink)
    return FileResponse(packed, media_type="application/zip", filename=f"{path.name}.zip")


@router.put("/image/info", summary="Add to what is known about an image")
def update_image_info(image: str, info: str = Form("{}"), user: User = Depends(_ANNOTATOR)) -> Any:
    """Update an image's entry in the datastore's index."""
    json_object("info", info)
    return datastore.update_image_info(image, info, user.username)


@router.put("/label/info", summary="Add to what is known about a label")
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
    background_tasks: BackgroundTasks,
    image: str,
    params: str = Form("{}"),
    tag: str = DefaultLabelTag.FINAL.value,
    label: UploadFile = File(...),
    user: User = Depends(_ANNOTATOR),
) -> dict[str, Any]:
    """Save a label; one in a `*.json` file holds corrections, which go into the log first."""
    app = app_instance()
    tag = tag or DefaultLabelTag.FINAL.value
    info = json_object("params", params)
    if isinstance(app.datastore(), StudyDatastore):
        app.datastore().check_label(image, tag, info)
    recorded: dict[str, Any] = {}
    if file_name("label", label).lower().endswith(".json"):
        corrections = _corrections_about(image, label)
        recorded = {"corrections": [correction.id for correction in corrections]}
        app.service.record(corrections)
        label.file.seek(0)
    saved = datastore.save_label(background_tasks, image, params, tag, label, user.username)
    return {**saved, **recorded}


def _packed(folder: Path) -> Path:
    """Pack a folder's files into a temporary zip, which the caller removes."""
    number, name = tempfile.mkstemp(prefix="radfound-", suffix=".zip")
    try:
        with os.fdopen(number, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for each in sorted(folder.rglob("*")):
                if each.is_file():
                    archive.write(each, each.relative_to(folder))
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)


def _corrections_about(image: str, label: UploadFile) -> list[Correction]:
    """Read the corrections of a label file: one, a list, or a list under "corrections"."""
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
