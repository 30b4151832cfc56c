"""Replies that do not tell where things lie on the server's disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

# Where MONAI Label puts a file's full path: of those, clients get the name.
_PATH_KEYS = {"image", "label", "path"}


class Folders:
    """The server's folders, and what stands for each in texts such as the log of a training.

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
        """Return JSON without the folders, the values of keys for paths as names of files."""
        if isinstance(value, dict):
            return {name: self.hidden_in(each, name) for name, each in value.items()}
        if isinstance(value, list):
            return [self.hidden_in(each, key) for each in value]
        if not isinstance(value, str):
            return value
        if key in _PATH_KEYS and os.path.isabs(value):
            return os.path.basename(value)
        return self.hidden(value)


def hide_folders(routers: Iterable[APIRouter], folders: Folders) -> None:
    """Let routes answer without the server's folders."""

    class WithoutFolders(JSONResponse):
        def render(self, content: Any) -> bytes:
            return super().render(folders.hidden_in(content))

    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute):
                route.response_class = WithoutFolders
