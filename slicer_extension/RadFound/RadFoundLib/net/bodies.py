"""Targets and bodies of requests."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Optional
from urllib.parse import quote, urlencode


def asked(
    images: Sequence[str],
    question: Optional[str],
    history: Sequence[Mapping[str, str]],
    region: Optional[Mapping[str, Any]],
    max_new_tokens: Optional[int],
    model: Optional[str],
    recall: bool = True,
    prior: str = "",
) -> dict[str, Any]:
    """Return the request's fields, without those that are None or empty."""
    fields = {
        "question": question,
        "images": list(images) if len(images) > 1 else None,
        "history": list(history) or None,
        "region": region,
        "max_new_tokens": max_new_tokens,
        "model": model,
        "recall": None if recall else False,
        "prior": prior or None,
    }
    return {key: value for key, value in fields.items() if value is not None}


def path(route: str, **names: str) -> str:
    """Return a route's path with its names filled in."""
    return route.format(**{key: quote(name, safe="") for key, name in names.items()})


def target(path: str, **query: str) -> str:
    """Return a path with its query."""
    return f"{path}?{urlencode(query)}"


def of_model(path: str, model: Optional[str]) -> str:
    """Return a path about one of the server's models; None is the default one."""
    return path if model is None else target(path, model=model)


def json_bytes(value: Any) -> bytes:
    """Return a value as the JSON body of a request."""
    return json.dumps(value).encode("ascii")
