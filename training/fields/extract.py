"""Compute the features of the kit's pictures once, and keep them on the disk."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from radfound.fields.features import INNER_LAYERS, FrameFeatures, field_frames
from training.fields.samples import Sample

logger = logging.getLogger(__name__)

_CHUNK = 64


def extract(
    samples: Sequence[Sample], features: FrameFeatures, cache: Path | None = None
) -> dict[str, np.ndarray]:
    """Return the features of pictures, shape (N, D) for each part.

    Parameters
    ----------
    samples : sequence of N Sample
    features : FrameFeatures
    cache : Path, optional
        Folder for the results, a file for each part of the pictures, so that a run can be taken up again.
    """
    chunks = []
    for start in range(0, len(samples), 16 * _CHUNK):
        part = samples[start : start + 16 * _CHUNK]
        file = cache / f"{_name(part, features)}.npz" if cache else None
        if file and file.is_file():
            with np.load(file) as stored:
                chunks.append({name: stored[name] for name in stored.files})
            continue
        pieces = [
            features(_pixels(part[first : first + _CHUNK])) for first in range(0, len(part), _CHUNK)
        ]
        joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, **joined)
        chunks.append(joined)
        logger.info("%d of %d pictures", start + len(part), len(samples))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _pixels(samples: Sequence[Sample]) -> torch.Tensor:
    return torch.cat([field_frames(sample.example().read()).pixels for sample in samples])


def _name(samples: Sequence[Sample], features: FrameFeatures) -> str:
    """Return a name that changes with the pictures and with what computes their features."""
    sha = hashlib.sha256(repr(INNER_LAYERS).encode())
    for sample in samples:
        sha.update(f"{sample.file}{sample.footer}".encode())
    for tensor in list(features.stem.state_dict().values())[-5:]:
        sha.update(tensor.float().numpy().tobytes())
    return sha.hexdigest()[:16]
