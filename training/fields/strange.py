"""Pictures that are none of the kinds in the training set, for the test that none of them is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from radfound.fields.features import FrameFeatures, field_frames
from radfound.fields.model import FieldModel
from radfound.optional import library
from radfound.study.study import Study, StudyImage
from training.fields.samples import Sample

KINDS: Mapping[str, tuple[str, ...]] = {
    "ultrasound": ("busi", "lung_us"),
    "mammography": ("mias", "mias_crops", "gmic"),
    "chest film": (
        "hannover", "actualmed", "figure1", "nih", "covid_notes", "nih_cxr", "kermany_pediatric_cxr", "covid_chestxray",
    ),
}  # fmt: skip
"""Sets of each kind that is left out of training in turn."""
_MODALITY = {"ultrasound": "ultrasound", "mammography": "mammography", "chest film": "X-ray"}


def strange_pictures(seed: int = 0) -> dict[str, np.ndarray]:
    """Return grey pictures that are no radiological images, by name."""
    chance = np.random.default_rng(seed)
    rows, columns = np.mgrid[:256, :256]
    found = {
        "blank": np.zeros((256, 256)),
        "white": np.full((256, 256), 255.0),
        "noise": chance.uniform(0, 255, (256, 256)),
        "gradient": columns.astype(float),
        "disc": 200.0 * ((rows - 128) ** 2 + (columns - 128) ** 2 < 90**2),
        "page of text": _page(seed),
        "page of text, inverted": 255.0 - _page(seed),
    }
    datasets = library("sklearn.datasets", "train")
    for name in ("china.jpg", "flower.jpg"):
        colours = np.asarray(datasets.load_sample_image(name), float)
        found[f"photograph, {name.removesuffix('.jpg')}"] = colours.mean(2)
    return {name: pixels.astype(np.uint8) for name, pixels in found.items()}


def _page(seed: int) -> np.ndarray:
    from PIL import Image, ImageDraw

    chance = np.random.default_rng(seed)
    page = Image.new("L", (800, 1000), 255)
    draw = ImageDraw.Draw(page)
    for line in range(60):
        words = ["".join(chance.choice(list("abcdefghilmnoprstu"), 6)) for _ in range(14)]
        draw.text((40, 20 + 16 * line), " ".join(words), fill=0)
    return np.asarray(page, float)


def picture_study(pixels: np.ndarray) -> Study:
    """Return a study of one picture without metadata."""
    return Study((StudyImage(pixels[None], np.diag([-1.0, -1.0, 1.0, 1.0]), calibrated=False),))


def picture_features(pixels: np.ndarray, features: FrameFeatures) -> dict[str, np.ndarray]:
    """Return the features of one picture."""
    return features(field_frames(picture_study(pixels)).pixels)


def share_named(model: FieldModel, values: Mapping[str, np.ndarray], rows: np.ndarray) -> float:
    """Return the share of pictures whose modality is named with a probability above 0.5."""
    named = 0
    for row in rows:
        found = model.judge({name: each[row : row + 1] for name, each in values.items()})
        value = found.fields["modality"]
        named += value.value is not None and (value.probability or 1.0) > 0.5
    return named / len(rows)


def of_kind(samples: Sequence[Sample], kind: str) -> np.ndarray:
    """Return which pictures are of a kind of `KINDS`; a set's pictures of another modality are not."""
    modality = _MODALITY[kind]
    return np.array([s.set in KINDS[kind] and s.labels["modality"] == modality for s in samples])
