"""Pointing test and randomisation test of evidence maps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from radfound.benchmark.evidence.phantoms import Phantom
from radfound.engine.generated import Ask, generate
from radfound.engine.local.backend import LocalBackend
from radfound.engine.local.model import LocalModel
from radfound.engine.protocol import Backend
from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
from radfound.question import Question
from radfound.study.evidence_map import Evidence

_WORDS = 8  # the longest answer has six tokens and a stop token


@dataclass(frozen=True)
class Pointing:
    """Results of the pointing test, as shares of the phantoms.

    Parameters
    ----------
    count : int
        Number of phantoms.
    answered : float
        The answer matches exactly.
    peak : float
        The highest voxel of the map lies in the lesion.
    random_place : float
        A random voxel of the image lies in the lesion.
    middle : float
        The middle of the image lies in the lesion.
    """

    count: int
    answered: float
    peak: float
    random_place: float
    middle: float


def maps_of(backend: Backend, phantoms: Sequence[Phantom]) -> tuple[list[str], list[Evidence]]:
    """Return the answers of a model and their evidence maps."""
    asks = [Ask(each.study, Question("vqa", each.question), _WORDS) for each in phantoms]
    texts = [answer.text.strip() for answer in generate(backend, asks)]
    return texts, _maps(backend, phantoms, texts)


def _maps(backend: Backend, phantoms: Sequence[Phantom], texts: Sequence[str]) -> list[Evidence]:
    return [
        backend.evidence(phantom.study, Question("vqa", phantom.question), text, adapter=None)
        for phantom, text in zip(phantoms, texts, strict=True)
    ]


def pointing(backend: Backend, phantoms: Sequence[Phantom]) -> Pointing:
    """Measure how often the peak of the evidence map lies in the lesion, with chance levels."""
    texts, maps = maps_of(backend, phantoms)
    middles = [tuple(size // 2 for size in phantom.lesion.shape) for phantom in phantoms]
    return Pointing(
        count=len(phantoms),
        answered=_mean(t == p.answer for t, p in zip(texts, phantoms, strict=True)),
        peak=_mean(bool(p.lesion[peak_of(m.maps[0])]) for m, p in zip(maps, phantoms, strict=True)),
        random_place=_mean(p.lesion.mean() for p in phantoms),
        middle=_mean(bool(p.lesion[m]) for m, p in zip(middles, phantoms, strict=True)),
    )


def peak_of(values: np.ndarray) -> tuple[int, ...]:
    """Return the index of the highest voxel; on a tie, the middle one in index order."""
    highest = np.argwhere(values == values.max())
    return tuple(int(index) for index in highest[len(highest) // 2])


def randomised(model: LocalModel, phantoms: Sequence[Phantom], seed: int = 1) -> dict[str, float]:
    """Randomise a model part by part, from output to input, and compare its maps with the original ones.

    The cascading test of Adebayo et al. (Sanity Checks for Saliency Maps, NeurIPS 2018, arXiv
    1810.03292): a map that hardly changes does not depend on the trained weights.

    Returns
    -------
    dict of str to float
        Mean rank correlation of patches with the maps of the trained model, for each stage; each stage
        randomises one more part.
    """
    texts, before = maps_of(LocalBackend(model), phantoms)
    changed = copy.deepcopy(model.model)
    fresh = _fresh(changed, seed)
    found = {}
    for name, part in _STAGES.items():
        part(changed).load_state_dict(part(fresh).state_dict())
        local = LocalModel(changed, model.processor, model.name, model.revision)
        after = _maps(LocalBackend(local), phantoms, texts)
        found[name] = _mean(
            spearmanr(a.patches.ravel(), b.patches.ravel()).statistic
            for a, b in zip(before, after, strict=True)
        )
    return found


_STAGES: dict[str, Callable[[RadFoundForConditionalGeneration], nn.Module]] = {
    "language model": lambda model: model.language_model,
    "and connector": lambda model: model.connector,
    "and vision encoder": lambda model: model.vision_model,
}


def untrained(model: LocalModel, seed: int = 1) -> LocalModel:
    """Return the model with random weights."""
    return LocalModel(_fresh(model.model, seed), model.processor, model.name, "random")


def _fresh(model: RadFoundForConditionalGeneration, seed: int) -> RadFoundForConditionalGeneration:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RadFoundForConditionalGeneration(model.config).to(model.dtype).eval()


def _mean(values: Iterable[float]) -> float:
    return float(np.mean([float(value) for value in values]))


def table(rows: dict[str, Pointing]) -> str:
    """Return results as a Markdown table, in per cent."""
    lines = [
        "| | n | answer right | peak in the lesion | a random place | the middle |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        shares = (row.answered, row.peak, row.random_place, row.middle)
        cells = " | ".join(f"{100 * share:.0f}" for share in shares)
        lines.append(f"| {name} | {row.count} | {cells} |")
    return "\n".join(lines)
