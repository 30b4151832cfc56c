"""Overlap between the splits of a data set: shared images, patients and questions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from radfound.datasets.example import Example


@dataclass(frozen=True)
class Overlap:
    """Overlap of two splits.

    Parameters
    ----------
    first, second : str
        The splits.
    images : int
        Files in both splits.
    keys : int
        Patients (or cases, or images if neither is known) in both splits.
    questions : int
        Questions with the same words about the same image in both splits.
    """

    first: str
    second: str
    images: int
    keys: int
    questions: int


def overlaps(
    splits: Mapping[str, Iterable[Example]], by_content: bool = False
) -> tuple[Overlap, ...]:
    """Return the overlap of each pair of splits.

    Parameters
    ----------
    splits : mapping of str to examples
    by_content : bool
        Compare file contents instead of paths: finds renamed copies, but must load every file.
    """
    contents = {name: _Contents.of(examples, by_content) for name, examples in splits.items()}
    return tuple(
        Overlap(
            first,
            second,
            len(contents[first].images & contents[second].images),
            len(contents[first].keys & contents[second].keys),
            len(contents[first].questions & contents[second].questions),
        )
        for first, second in combinations(contents, 2)
    )


@dataclass(frozen=True)
class _Contents:
    images: set[str]
    keys: set[str]
    questions: set[tuple[str, str]]

    @classmethod
    def of(cls, examples: Iterable[Example], by_content: bool) -> _Contents:
        contents = cls(set(), set(), set())
        for example in examples:
            names = [_digest(f) if by_content else str(f.resolve()) for f in example.files]
            contents.images.update(names)
            contents.keys.add(example.key)
            for turn in example.turns:
                wordings = map(_normal, turn.questions)
                contents.questions.update((names[0], wording) for wording in wordings)
        return contents


def _normal(question: str) -> str:
    return " ".join(question.lower().split())


def _digest(path: Path) -> str:
    """Return a digest of a file, or of the files of a folder such as a DICOM series."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()
