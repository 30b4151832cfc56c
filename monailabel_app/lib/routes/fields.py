"""Form fields and file names as callers send them."""

from __future__ import annotations

import json
import re
from typing import Any

from fastapi import UploadFile

from radfound.exceptions import RequestError

_PLAIN_NAME = re.compile(r"[^\x00-\x1f]{1,150}")


def json_object(name: str, text: str) -> dict[str, Any]:
    """Read a form field that must be a JSON object; RequestError names the field."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise RequestError(f"{name}: not JSON{where}; expected a JSON object") from error
    if not isinstance(value, dict):
        raise RequestError(f"{name}: expected a JSON object")
    return value


def file_name(name: str, upload: UploadFile) -> str:
    """Return the last part of an uploaded file's name (MONAI Label's client sends whole paths).

    RequestError names the field if no file may be called so.
    """
    found = re.split(r"[/\\]", upload.filename or "")[-1]
    if not _PLAIN_NAME.fullmatch(found) or not found.strip("."):
        raise RequestError(f"{name}: expected a file name of 1 to 150 characters")
    return found
