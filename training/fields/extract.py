"""Compute the features of the kit's pictures once, and keep them on the disk."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from radfound.fields.features import TEXTURE_LAYERS, FrameFeatures, Texture, field_frames
from training.fields.samples import Sample

logger = logging.getLogger(__name__)

_CHUNK = 64
_TEXTURE_PICTURES = 600


def fit_textures(stem: torch.nn.Module, samples: Sequence[Sample], seed: int = 0) -> list[Texture]:
    """Return the projections of the inner layers, fitted to some training pictures.

    Principal components of the features at all places of the pictures, scaled to unit variance.
    """
    known = [sample for sample in samples if sample.split == "train"]
    chosen = random.Random(seed).sample(known, min(_TEXTURE_PICTURES, len(known)))
    inner: list[list[torch.Tensor]] = [[] for _ in TEXTURE_LAYERS]
    features = FrameFeatures(stem, ())
    with torch.inference_mode():
        for start in range(0, len(chosen), _CHUNK):
            _, layers = features.layers(_pixels(chosen[start : start + _CHUNK]))
            for found, layer in zip(inner, layers, strict=True):
                found.append(layer.flatten(2).transpose(1, 2)[:, ::4].reshape(-1, layer.shape[1]))
    textures = []
    for parts, width in zip(inner, TEXTURE_LAYERS.values(), strict=True):
        points = torch.cat(parts)
        mean = points.mean(0)
        values, vectors = torch.linalg.eigh((points - mean).T @ (points - mean) / len(points))
        projection = vectors[:, -width:] / values[-width:].sqrt()
        textures.append(Texture(mean.numpy(), projection.numpy()))
    return textures


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
    sha = hashlib.sha256()
    for sample in samples:
        sha.update(f"{sample.file}{sample.footer}".encode())
    for texture in features.textures:
        sha.update(np.ascontiguousarray(texture.projection).tobytes())
    for tensor in list(features.stem.state_dict().values())[-5:]:
        sha.update(tensor.float().numpy().tobytes())
    return sha.hexdigest()[:16]
