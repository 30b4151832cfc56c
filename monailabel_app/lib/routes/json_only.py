"""Require the JSON content type, which a foreign page cannot send without a CORS preflight."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Depends, Request
from fastapi.params import Form
from fastapi.routing import APIRoute

from radfound.exceptions import RequestError

_CHANGING = {"POST", "PUT", "PATCH", "DELETE"}


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
    """Make routes that change something and take no form refuse bodies other than JSON."""
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
