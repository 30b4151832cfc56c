"""Form fields and file names as callers send them."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from fastapi import Request, UploadFile

from radfound.exceptions import RequestError
from radfound.validation import is_storable

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
    _check_sound(name, value)
    return value


async def sound_body(request: Request) -> None:
    """Refuse a JSON body with what no reply could repeat: infinite numbers (1e400), half characters.

    A dependency of the routes that take JSON.
    """
    if not request.headers.get("content-type", "").startswith("application/json"):
        return
    if not await request.body():
        return
    try:
        _check_sound("body", await request.json())
    except (ValueError, RecursionError) as error:
        raise RequestError("body: not JSON; expected a JSON object") from error


def _check_sound(name: str, value: object) -> None:
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, float) and not math.isfinite(each):
            raise RequestError(f"{name}: holds a number that is not finite; expected JSON numbers")
        if isinstance(each, str) and not is_storable(each):
            raise RequestError(f"{name}: holds half a surrogate pair; expected valid Unicode")
        if isinstance(each, dict):
            left += [*each, *each.values()]
        elif isinstance(each, list):
            left += each


def file_name(name: str, upload: UploadFile) -> str:
    """Return the last part of an uploaded file's name (MONAI Label's client sends whole paths).

    RequestError names the field if no file may be called so.
    """
    found = re.split(r"[/\\]", upload.filename or "")[-1]
    if not _PLAIN_NAME.fullmatch(found) or not found.strip("."):
        raise RequestError(f"{name}: expected a file name of 1 to 150 characters")
    return found
