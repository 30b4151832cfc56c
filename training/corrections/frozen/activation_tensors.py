"""The cached answers of some studies as tensors, to keep them on disk between runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import torch

from radfound.engine.local.kv_cache import KVCache
from training.corrections.frozen.upper_layers import CachedAnswer
from training.packing import Branch


def packed(studies: Sequence[Sequence[CachedAnswer]]) -> dict[str, torch.Tensor]:
    """Return all cached answers of S studies as a few tensors; answers of one study share its KV cache.

    Parameters
    ----------
    studies : sequence of (sequence of CachedAnswer)
        At least one answer each.
    """
    answers = list(chain.from_iterable(studies))
    layers = [some[0].study.layers for some in studies]
    return {
        "answers": torch.tensor([len(some) for some in studies]),
        "questions": torch.tensor([len(each.branch.question) for each in answers]),
        "lengths": torch.tensor([len(each.branch.answer) for each in answers]),
        "tokens": torch.tensor(
            list(chain.from_iterable(each.branch.question + each.branch.answer for each in answers))
        ),
        "keys": torch.stack([torch.cat([keys for keys, _ in each]) for each in layers]),
        "values": torch.stack([torch.cat([values for _, values in each]) for each in layers]),
        "hidden": torch.cat([each.hidden for each in answers]),
        "teacher": torch.cat([each.teacher_hidden for each in answers]),
    }


def unpacked(kept: Mapping[str, torch.Tensor], device: torch.device) -> list[list[CachedAnswer]]:
    """Return the cached answers, study by study.

    Raises
    ------
    KeyError, ValueError, RuntimeError
        If the tensors are not those of `packed`.
    """
    questions, lengths = (kept[name].tolist() for name in ("questions", "lengths"))
    tokens = kept["tokens"].tolist()
    sizes = [asked + length for asked, length in zip(questions, lengths, strict=True)]
    # The last token of an answer predicts nothing.
    hidden = kept["hidden"].to(device).split([size - 1 for size in sizes])
    teacher = kept["teacher"].to(device).split(lengths)
    rest = iter(zip(questions, sizes, hidden, teacher, strict=True))
    found: list[list[CachedAnswer]] = []
    start = 0
    for count, keys, values in zip(
        kept["answers"].tolist(), kept["keys"].to(device), kept["values"].to(device), strict=True
    ):
        study = KVCache(tuple((k[None], v[None]) for k, v in zip(keys, values, strict=True)))
        some = []
        for _ in range(count):
            asked, size, entering, leaving = next(rest)
            own = tokens[start : start + size]
            branch = Branch(own[:asked], own[asked:])
            some.append(CachedAnswer(branch, study, entering, leaving))
            start += size
        found.append(some)
    return found
