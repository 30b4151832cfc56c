import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from radfound.engine.engine import Engine
from radfound.study.study import Study, StudyImage

NOBODY = 65534


@pytest.fixture
def unwritable_folder():
    """A folder that the test may read and not write, also where the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="radfound-unwritable-"))
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def engine():
    """The random model, without adapters."""
    return Engine.load("radfound-tiny")


@pytest.fixture(scope="module")
def study():
    """A small volume of noise."""
    voxels = np.random.default_rng(0).integers(0, 99, (12, 20, 20)).astype(np.int16)
    return Study((StudyImage(voxels, np.diag([-1.0, -1.0, 3.0, 1.0])),), id="ct01")
