"""The files of the OHIF viewer: those of the wheel, this project's settings, and no other host."""

import re
from pathlib import Path

import pytest

from monailabel_app.lib.browser.viewer import _VIEWER

BUNDLE = next(path.name for path in _VIEWER.glob("app.bundle.*.js"))


def test_files_in_folders_of_the_viewer_are_found(server):
    [icon] = _VIEWER.glob("assets/favicon.ico")
    assert server.get("/ohif/assets/favicon.ico").content == icon.read_bytes()
    assert "html" in server.get("/ohif/no/such/file").headers["Content-Type"]


def test_settings_and_extension_are_those_of_this_project(server):
    for name in ("app-config.js", "radfound-extension.js"):
        reply = server.get(f"/ohif/{name}")
        assert "javascript" in reply.headers["Content-Type"]
        assert reply.headers["Cache-Control"] == "no-cache"
    assert "/ohif/radfound-extension.js" in server.get("/ohif/app-config.js").text


@pytest.mark.parametrize("name", ["", "app.bundle.css"])
def test_the_viewer_loads_nothing_from_other_hosts(server, name):
    text = server.get(f"/ohif/{name}").text
    assert not re.search(r'<(link|script)[^>]*="https?:|@import[^;]*https?:', text)
    assert "stylesheet" in text or "{" in text


def test_a_file_whose_name_changes_with_its_content_is_loaded_once(server):
    assert "immutable" in server.get(f"/ohif/{BUNDLE}").headers["Cache-Control"]


def test_only_the_viewers_workers_may_make_code(server):
    page, script = (server.get(f"/ohif/{name}").headers for name in ("", BUNDLE))
    assert "'unsafe-eval'" not in page["Content-Security-Policy"]
    assert "frame-src 'self'" in page["Content-Security-Policy"]
    assert "'unsafe-eval'" in script["Content-Security-Policy"]


def test_the_viewer_gives_no_file_beside_it(server):
    secret = Path(_VIEWER.parent / "favicon.ico").read_bytes()
    assert server.get("/ohif/..%2ffavicon.ico").content != secret
