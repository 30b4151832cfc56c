"""Whether evidence maps point to what was asked about, and whether they depend on what a model has learnt."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from radfound.benchmark.evidence.phantoms import Phantom
from radfound.engine.local.backend import LocalModel, Prompt
from radfound.model.attribution import Evidence
from radfound.model.modeling_radfound import RadFoundForConditionalGeneration

_WORDS = 8  # the longest answer has six, and a stop token


@dataclass(frozen=True)
class Pointing:
    """How often something points into the lesion, as shares of the phantoms.

    Parameters
    ----------
    count : int
        Phantoms.
    answered : float
        The answer is right, word for word.
    peak : float
        The highest voxel of the map lies in the lesion.
    random_place : float
        So would a voxel of the image that is drawn blindly.
    middle : float
        So does the middle of the image.
    """

    count: int
    answered: float
    peak: float
    random_place: float
    middle: float


def maps_of(model: LocalModel, phantoms: Sequence[Phantom]) -> tuple[list[str], list[Evidence]]:
    """Return what a model answers, and where it looked for that."""
    encoded = [model.encode(each.study) for each in phantoms]
    prompts = [Prompt("vqa", each.question) for each in phantoms]
    texts = [each.text.strip() for each in model.generate(encoded, prompts, _WORDS)]
    return texts, _maps(model, phantoms, texts)


def _maps(model: LocalModel, phantoms: Sequence[Phantom], texts: Sequence[str]) -> list[Evidence]:
    return [
        model.evidence(each.study, None, Prompt("vqa", each.question), text)
        for each, text in zip(phantoms, texts, strict=True)
    ]


def pointing(model: LocalModel, phantoms: Sequence[Phantom]) -> Pointing:
    """Measure how often the peak of a model's map lies in the lesion, beside chance."""
    texts, maps = maps_of(model, phantoms)
    middles = [tuple(size // 2 for size in each.lesion.shape) for each in phantoms]
    return Pointing(
        count=len(phantoms),
        answered=_mean(t == p.answer for t, p in zip(texts, phantoms, strict=True)),
        peak=_mean(bool(p.lesion[peak_of(m.maps[0])]) for m, p in zip(maps, phantoms, strict=True)),
        random_place=_mean(p.lesion.mean() for p in phantoms),
        middle=_mean(bool(p.lesion[m]) for m, p in zip(middles, phantoms, strict=True)),
    )


def peak_of(values: np.ndarray) -> tuple[int, ...]:
    """Return the index of the highest voxel, of several the one in their middle."""
    highest = np.argwhere(values == values.max())
    return tuple(int(index) for index in highest[len(highest) // 2])


def randomised(model: LocalModel, phantoms: Sequence[Phantom], seed: int = 1) -> dict[str, float]:
    """Randomise a model from its words down to its pixels, and compare its maps with those of before.

    The cascading test of Adebayo et al. (Sanity Checks for Saliency Maps, NeurIPS 2018, arXiv
    1810.03292): a map that hardly changes says nothing about what the model has learnt.

    Returns
    -------
    dict of str to float
        For each stage, in which one part more is random, the mean rank correlation of patches with the
        maps of the trained model.
    """
    texts, before = maps_of(model, phantoms)
    changed = copy.deepcopy(model.model)
    fresh = _fresh(changed, seed)
    found = {}
    for name, part in _STAGES.items():
        part(changed).load_state_dict(part(fresh).state_dict())
        local = LocalModel(changed, model.processor, model.name, model.revision)
        after = _maps(local, phantoms, texts)
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
    """Return the same model before it learnt anything."""
    return LocalModel(_fresh(model.model, seed), model.processor, model.name, "random")


def _fresh(model: RadFoundForConditionalGeneration, seed: int) -> RadFoundForConditionalGeneration:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RadFoundForConditionalGeneration(model.config).to(model.dtype).eval()


def _mean(values: Iterable[float]) -> float:
    return float(np.mean([float(value) for value in values]))


def table(rows: dict[str, Pointing]) -> str:
    """Return rows of pointing as a Markdown table, in per cent."""
    lines = [
        "| | n | answer right | peak in the lesion | a random place | the middle |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        shares = (row.answered, row.peak, row.random_place, row.middle)
        cells = " | ".join(f"{100 * share:.0f}" for share in shares)
        lines.append(f"| {name} | {row.count} | {cells} |")
    return "\n".join(lines)
