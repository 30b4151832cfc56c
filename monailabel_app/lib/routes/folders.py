"""Replies without paths of the server's disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

# Keys in which MONAI Label returns a file's full path; clients get the base name.
_PATH_KEYS = {"image", "label", "path"}


class Folders:
    """The server's folders, and the placeholder of each in texts such as the training log.

    Parameters
    ----------
    named : mapping of str to path
    """

    def __init__(self, named: Mapping[str, str | Path]):
        self._names = {os.path.realpath(path): name for name, path in named.items()}
        longest_first = sorted(self._names, key=len, reverse=True)
        roots = "|".join(map(re.escape, longest_first))
        self._pattern = re.compile(rf"(?<![\w.-])(?:{roots})(?![\w.-])")

    def hidden(self, text: str) -> str:
        """Return a text with `<name>` in place of each folder."""
        return self._pattern.sub(lambda found: f"<{self._names[found[0]]}>", text)

    def hidden_in(self, value: Any, key: object = None) -> Any:
        """Return JSON with folders replaced, and with base names under the keys for paths."""
        if isinstance(value, dict):
            return {name: self.hidden_in(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [self.hidden_in(item, key) for item in value]
        if not isinstance(value, str):
            return value
        if key in _PATH_KEYS and os.path.isabs(value):
            return os.path.basename(value)
        return self.hidden(value)


def hide_folders(routers: Iterable[APIRouter], folders: Folders) -> None:
    """Hide the server's folders in the replies of all routes of these routers."""

    class WithoutFolders(JSONResponse):
        def render(self, content: Any) -> bytes:
            return super().render(folders.hidden_in(content))

    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute):
                route.response_class = WithoutFolders
