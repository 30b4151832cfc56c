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
    """Parse a form field that must be a JSON object; RequestError names the field."""
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
    """Refuse a JSON body with values that no reply can hold: infinite numbers (1e400), lone surrogates.

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
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, float) and not math.isfinite(item):
            raise RequestError(f"{name}: holds a number that is not finite; expected JSON numbers")
        if isinstance(item, str) and not is_storable(item):
            raise RequestError(f"{name}: holds half a surrogate pair; expected valid Unicode")
        if isinstance(item, dict):
            pending += [*item, *item.values()]
        elif isinstance(item, list):
            pending += item


def file_name(name: str, upload: UploadFile) -> str:
    """Return the base name of an uploaded file (MONAI Label's client sends whole paths).

    RequestError names the field if this is no valid file name.
    """
    found = re.split(r"[/\\]", upload.filename or "")[-1]
    if not _PLAIN_NAME.fullmatch(found) or not found.strip("."):
        raise RequestError(f"{name}: expected a file name of 1 to 150 characters")
    return found
