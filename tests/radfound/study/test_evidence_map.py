import numpy as np
import pytest

from radfound.exceptions import StorageError
from radfound.study.evidence_map import write_nrrd


def test_a_map_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(StorageError, match="map.nrrd: cannot be written"):
        write_nrrd(tmp_path / "no-such-folder" / "map.nrrd", np.zeros((1, 2, 2)), np.eye(4))
