import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def kit() -> Path:
    """The folder of real, de-identified data, which is no part of the repository."""
    folder = Path(os.environ.get("RADFOUND_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "manifest.json").is_file():
        pytest.skip("no data kit: set RADFOUND_DATA to its folder")
    return folder
