"""The OHIF viewer of the monailabel wheel, with this project's settings and panel."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse, Response
from monailabel import endpoints
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.utils.others.generic import get_mime_type

from radfound.exceptions import NotFoundError

ADDRESS = "/ohif/"
"""Where the viewer lies; its page holds this address."""

router = APIRouter(include_in_schema=False)

_VIEWER = Path(endpoints.__file__).parent / "static" / "ohif"
_INDEX = _VIEWER / "index.html"
_OURS = Path(__file__).with_name("ohif")
_FOREIGN = re.compile(rb"<link\b[^>]*\bhref=\"https?://[^>]*>|@import url\(https?://[^)]*\);")
# The name of such a file changes with its content.
_LASTING = re.compile(r"\.[0-9a-f]{20}\.(js|wasm)|[0-9a-f]{20}\.wasm")
_LASTS = {"Cache-Control": "private, max-age=31536000, immutable"}

# Only a worker obeys the policy of a script. The decoders of compressed images are made at run time.
_WORKER_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; connect-src 'self' data: blob:"
)

_USER = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)


@router.get(ADDRESS + "{path:path}")
def viewer_file(path: str, user: User = Depends(_USER)) -> Response:
    """Return a file of the viewer, or its page for the viewer's own addresses."""
    file = _find(_OURS, path) or _find(_VIEWER, path) or _INDEX
    if not file.is_file():
        raise NotFoundError("ohif: this installation of MONAI Label has no viewer")
    kind = get_mime_type(str(file))
    if file.suffix in (".html", ".css"):
        return Response(_without_foreign_hosts(file), media_type=kind)
    headers = dict(_LASTS) if _LASTING.search(file.name) else {}
    if file.suffix == ".js":
        headers["Content-Security-Policy"] = _WORKER_POLICY
    return FileResponse(file, media_type=kind, headers=headers)


def viewer_headers() -> dict[str, str]:
    """Return the headers of the viewer, whose page holds two inline scripts.

    The viewer compiles WebAssembly, draws from blobs and creates styles at run time. The panel is a
    frame of this server.
    """
    scripts = re.findall(rb"<script>(.*?)</script>", _INDEX.read_bytes(), re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(each).digest()).decode("ascii") for each in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": f"default-src 'self'; script-src 'self' 'wasm-unsafe-eval' blob: {allowed}; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self' data: blob:; worker-src 'self' blob:; frame-src 'self'; object-src 'none'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    }


def _find(folder: Path, path: str) -> Path | None:
    """Return a file of a folder by its path in an address."""
    try:
        file = (folder / path).resolve()
        return file if file.is_relative_to(folder.resolve()) and file.is_file() else None
    except (OSError, ValueError):  # no name that a file could have
        return None


@cache
def _without_foreign_hosts(file: Path) -> bytes:
    """Return a page or style without its fonts: a browser connects to their host before any policy applies."""
    return _FOREIGN.sub(b"", file.read_bytes())
