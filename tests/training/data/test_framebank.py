import pytest
import torch

from radfound.datasets import Example, Kit
from radfound.exceptions import TrainingError
from radfound.study.frames import FrameConfig
from training.data.frame_bank import FrameBank, augment


def test_frames_of_one_file_are_held_once(kit):
    examples = list(Kit(kit).vqa("test"))[:3]
    bank = FrameBank([*examples, examples[0]], FrameConfig(image_size=64))
    assert len(bank) == 4 and bank.pixels.shape[0] == 3
    assert bank.rows[0].tolist() == bank.rows[3].tolist()


def test_augmentation_never_mirrors():
    pixels = torch.zeros(32, 3, 64, 64, dtype=torch.uint8)
    pixels[:, :, 24:40, 44:52] = 255
    moved = augment(pixels, torch.Generator().manual_seed(0))
    centre = (moved[:, 0].sum(1) * torch.arange(64)).sum(1) / moved[:, 0].sum((1, 2))
    assert (centre > 32).all()


def test_a_bank_of_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    lost = Example("patient", (tmp_path / "broken.png",), (), {})
    with pytest.raises(TrainingError, match="none of 1 examples"):
        FrameBank([lost], FrameConfig(image_size=64))
