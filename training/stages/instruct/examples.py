"""The studies and conversations of instruction tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from radfound.datasets.example import Example
from radfound.datasets.kit import Kit
from training.fields.turns import labelled_pictures


def kit_examples(kit: Kit) -> list[Example]:
    """Return the kit's training examples: questions, captions, reports, fields and findings."""
    return [
        *kit.medpix_figures(),
        *kit.vqa(),
        *kit.medpix_cases(max_images=2),
        *kit.radiographs(every_nth_small=6),
        *kit.mammograms(),
        *kit.volumes(slices_per_plane=6),
        *labelled_pictures(kit.root),
    ]


def held_examples(kit: Kit) -> list[Example]:
    """Return the kit's figures and questions for validation."""
    return [*kit.medpix_figures("validation"), *kit.vqa("validation")]


def conversations(examples: Sequence[Example]) -> list[Example]:
    """Return the examples with turns, merged to one for each image."""
    return merge_by_image([e for e in examples if e.turns])


def merge_by_image(examples: Sequence[Example]) -> list[Example]:
    """Merge examples of different sources about the same files."""
    merged: dict[tuple[tuple[Path, ...], str], Example] = {}
    for example in examples:
        key = (example.files, repr(example.region))
        if known := merged.get(key):
            new = tuple(turn for turn in example.turns if turn not in known.turns)
            example = replace(
                known, turns=known.turns + new, labels={**example.labels, **known.labels}
            )
        merged[key] = example
    return list(merged.values())


def epoch_order(examples: Sequence[Example], vqa_repeats: int) -> list[int]:
    """Return the indices of an epoch; an image with questions of its own is repeated."""
    return [
        index
        for index, example in enumerate(examples)
        for _ in range(vqa_repeats if any(turn.id for turn in example.turns) else 1)
    ]
