"""What callers send: content types, JSON bodies, form fields and file names."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Depends, Request, UploadFile
from fastapi.params import Form
from fastapi.routing import APIRoute

from radfound.exceptions import RequestError
from radfound.validation import inline_schema, is_storable

_CHANGING = {"POST", "PUT", "PATCH", "DELETE"}
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


def json_body(kind: Any) -> dict[str, Any]:
    """Return `openapi_extra` of a route that parses its JSON body itself."""
    content = {"application/json": {"schema": inline_schema(kind)}}
    return {"requestBody": {"required": True, "content": content}}


def file_name(name: str, upload: UploadFile) -> str:
    """Return the base name of an uploaded file (MONAI Label's client sends whole paths).

    RequestError names the field if this is no valid file name.
    """
    found = re.split(r"[/\\]", upload.filename or "")[-1]
    if not _PLAIN_NAME.fullmatch(found) or not found.strip("."):
        raise RequestError(f"{name}: expected a file name of 1 to 150 characters")
    return found


class ContentTypeError(RequestError):
    """The route does not accept the content type of the body."""

    code = "content_type_wrong"
    http_status = 415


async def _is_json(request: Request) -> None:
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() == "application/json":
        return
    if kind or await request.body():
        raise ContentTypeError(
            f"Content-Type: found {kind[:80]!r}; expected application/json, with JSON or nothing as the body"
        )


def insist_on_json(routers: Iterable[APIRouter]) -> None:
    """Make routes that change something and take no form refuse bodies other than JSON.

    A foreign page cannot send this content type without a CORS preflight.
    """
    for router in routers:
        for route in router.routes:
            if (
                isinstance(route, APIRoute)
                and _CHANGING & set(route.methods or ())
                and not _takes_form(route)
            ):
                route.dependencies.insert(0, Depends(_is_json))


def _takes_form(route: APIRoute) -> bool:
    return route.body_field is not None and isinstance(route.body_field.field_info, Form)
