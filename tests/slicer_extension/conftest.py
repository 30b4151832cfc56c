import importlib
import sys
from pathlib import Path

import pytest

# Slicer puts a module's folder on the path; so do its tests.
sys.path.insert(0, str(Path(__file__).parents[2] / "slicer_extension" / "RadFound"))


def what_is_lacking():
    """Return why Qt or Slicer's data library cannot be loaded here; empty if they can."""
    try:
        for name in ("slicer", "PySide6.QtTest", "PySide6.QtUiTools", "PySide6.QtWidgets"):
            importlib.import_module(name)
    except ImportError as error:
        return f"needs Slicer's data library and Qt, which `make test` installs ({error})"
    return ""


LACKING = what_is_lacking()


class NotHere(pytest.Module):
    """A file of tests that cannot even be imported here."""

    def collect(self):
        pytest.skip(LACKING, allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    text = module_path.read_text(encoding="utf-8")
    if LACKING and ("\nimport slicer" in text or "standin" in text):
        return NotHere.from_parent(parent, path=module_path)
    return None
