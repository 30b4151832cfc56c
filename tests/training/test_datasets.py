import re

import pytest

from radfound.exceptions import TrainingError
from radfound.frames import FrameConfig
from training.datasets import Kit
from training.framebank import FrameBank, augment


def synpics(examples):
    return {
        found.group()
        for e in examples
        for f in e.files
        if (found := re.search(r"synpic\d+", f.name))
    }


def test_a_folder_without_the_kit_is_named(tmp_path):
    with pytest.raises(TrainingError, match="manifest.json"):
        Kit(tmp_path)


def test_no_training_image_is_a_held_out_medpix_figure(kit):
    data = Kit(kit)
    held_out = synpics([*data.medpix_figures("validation"), *data.medpix_figures("test")])
    training = [
        *data.medpix_figures(),
        *data.medpix_cases(),
        *data.vqa(),
        *data.radiographs(),
        *data.mammograms(),
    ]
    assert len(held_out) == 216
    assert synpics(training) & held_out == set()


def test_the_sources_are_read_whole(kit):
    data = Kit(kit)
    assert sum(len(e.turns) for e in data.vqa("test")) == 451
    assert sum(1 for _ in data.medpix_figures()) == 1551
    assert sum(1 for _ in data.medpix_figures("test")) == 123
    report = next(data.medpix_cases()).turns[0]
    assert (
        report.task == "report"
        and report.answer.startswith("Findings: ")
        and "\nImpression: " in report.answer
    )


def test_figures_have_modality_plane_and_region_and_lose_their_footer(kit):
    example = next(Kit(kit).medpix_figures())
    assert example.labels == {"modality": "CT", "plane": "axial", "region": "thorax"}
    from radfound.reading import read_study

    whole = read_study(example.files[0]).images[0].voxels.shape[1]
    assert example.read().images[0].voxels.shape[1] == whole - round(0.06 * whole)


def test_frames_of_one_file_are_held_once(kit):
    examples = list(Kit(kit).vqa("test"))[:3]
    bank = FrameBank([*examples, examples[0]], FrameConfig(image_size=64))
    assert len(bank) == 4 and bank.pixels.shape[0] == 3
    assert bank.rows[0].tolist() == bank.rows[3].tolist()


def test_augmentation_never_mirrors():
    import torch

    pixels = torch.zeros(32, 3, 64, 64, dtype=torch.uint8)
    pixels[:, :, 24:40, 44:52] = 255
    moved = augment(pixels, torch.Generator().manual_seed(0))
    centre = (moved[:, 0].sum(1) * torch.arange(64)).sum(1) / moved[:, 0].sum((1, 2))
    assert (centre > 32).all()
