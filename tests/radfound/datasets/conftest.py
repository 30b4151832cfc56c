import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture():
    """Write a small picture, of the format that its name says."""

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shade = np.linspace(0, 255, 32 * 24).reshape(32, 24).astype(np.uint8)
        Image.fromarray(shade).save(path)
        return path

    return write


@pytest.fixture
def write():
    """Write text, or rows as JSON or as JSON lines, into a file."""

    def to_file(path: Path, content, lines: bool = False) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if lines:
            content = "\n".join(json.dumps(row) for row in content)
        elif not isinstance(content, str):
            content = json.dumps(content)
        path.write_text(content, encoding="utf-8")
        return path

    return to_file
