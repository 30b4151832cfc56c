"""Replacements for MONAI Label routes that fail on valid requests."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from radfound.exceptions import NotFoundError, RequestError, StudyUnreadableError

router = APIRouter()

_CHECKSUMS = ("SHA256", "SHA512", "MD5")
_GPU_TOOL = "nvidia-smi"
_GPU_TOOL_S = 20

_USER = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)
_ADMIN = RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN)


@router.get("/logs/gpu", tags=["Others"], summary="Get the output of nvidia-smi")
def gpu_state(user: User = Depends(_ADMIN)) -> PlainTextResponse:
    """Return the state of the machine's GPUs."""
    if shutil.which(_GPU_TOOL) is None:
        raise NotFoundError(f"{_GPU_TOOL}: not on this machine, which has no NVIDIA GPU")
    try:
        done = subprocess.run([_GPU_TOOL], capture_output=True, text=True, timeout=_GPU_TOOL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotFoundError(f"{_GPU_TOOL}: failed ({type(error).__name__})") from error
    return PlainTextResponse(done.stdout)


@router.head("/datastore/image", tags=["Datastore"], summary="Check whether an image exists")
def has_image(
    image: str, check_sum: str | None = None, user: User = Depends(_USER)
) -> dict[str, Any]:
    """Return 200 if the image exists and its file matches `check_sum`, where given.

    `check_sum` is a hexadecimal SHA256 digest, or a digest after `SHA512:` or `MD5:`.
    """
    path = Path(app_instance().datastore().get_image_uri(image))
    if not path.is_file():
        raise NotFoundError("image: a folder, or not there; expected the id of a file")
    if check_sum and not _has_checksum(path, check_sum):
        raise NotFoundError("image: found an image with this id but another checksum")
    return {}


def _has_checksum(path: Path, expected: str) -> bool:
    name, _, digest = expected.rpartition(":")
    name = (name or _CHECKSUMS[0]).upper()
    if name not in _CHECKSUMS:
        raise RequestError(f"check_sum: expected one of {', '.join(_CHECKSUMS)} before the colon")
    try:
        found = hashlib.new(name)
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                found.update(block)
    except OSError as error:
        raise StudyUnreadableError(f"image: cannot be read ({error.strerror})") from error
    return found.hexdigest() == digest.lower()
