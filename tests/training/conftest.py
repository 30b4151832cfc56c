import nibabel
import numpy as np
import pytest
from PIL import Image

from radfound.datasets.example import Example, Turn
from radfound.model.checkpoints import load
from radfound.study.frames import FrameConfig
from training.data.frame_bank import FrameBank

TURNS = (
    Turn("vqa", ("Which imaging modality is this?", "What kind of scan is this?"), "CT"),
    Turn("vqa", ("Is it normal?",), "No"),
    Turn("caption", (), "A square in a grey field."),
)


@pytest.fixture
def tiny():
    """A random model and its processor; made anew, since tests train it."""
    model, processor, _, _ = load("radfound-tiny")
    return model, processor


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    """Six pictures of noise, every second with a bright square, and two volumes with a cube."""
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    found = []
    for number in range(6):
        pixels = noise.integers(0, 90, (64, 64), dtype=np.uint8)
        if number % 2 == 0:  # so that modality can be told from the picture
            pixels[8 * number : 8 * number + 20, 16:44] = 220
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        labels = {"modality": ("CT", "MRI")[number % 2], "region": "head"}
        found.append(Example(f"patient {number}", (path,), TURNS, labels, "A square."))
    for number in range(2):
        voxels = noise.integers(0, 90, (40, 40, 12)).astype(np.int16)
        voxels[10:20, 10:30, 3 * number : 3 * number + 6] = 300
        path = folder / f"{number}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 4.0, 1.0])), path)
        found.append(Example(f"volume {number}", (path,), TURNS[:1], {"modality": "MRI"}))
    return found


@pytest.fixture(scope="session")
def bank(examples):
    return FrameBank(examples, FrameConfig(image_size=64, max_frames=4))
