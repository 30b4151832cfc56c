"""Pages for a browser: plain HTML without scripts or external resources."""

from __future__ import annotations

import base64
import hashlib
from html import escape

from fastapi.responses import HTMLResponse
from starlette.requests import HTTPConnection

from .admission import LOG_IN

_STYLE = (
    "body{font:1rem/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "td,th{text-align:left;vertical-align:top;padding:.2rem 1rem .2rem 0}"
    "code{white-space:nowrap}[role=alert]{color:#b00020}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")
_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    # With no referrer at all, browsers send the page's own forms with `Origin: null`.
    "Referrer-Policy": "same-origin",
}


def page(title: str, body: str, status_code: int = 200) -> HTMLResponse:
    """Return a page; `title` is text, `body` is HTML."""
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>",
        status_code=status_code,
        headers=_HEADERS,
    )


def log_in_page(
    call: HTTPConnection, trouble: str = "", status_code: int = 200, then: str = "/"
) -> HTMLResponse:
    """Return the page that asks for the token, and goes on to `then`, a path of this server."""
    root = escape(call.scope.get("root_path", ""), quote=True)
    alert = f"<p role='alert'>{escape(trouble)}</p>" if trouble else ""
    return page(
        "RadFound: log in",
        f'{alert}<form method="post" action="{root}{LOG_IN}"><label>Token '
        '<input type="password" name="token" autocomplete="current-password" required autofocus></label> '
        "<button>Log in</button>"
        f'<input type="hidden" name="then" value="{escape(then, quote=True)}"></form>'
        "<p>The token is the one that the server was started with.</p>",
        status_code,
    )
