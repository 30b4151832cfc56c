"""What the splits of a data set share: images and patients that are on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from radfound.datasets.example import Example


@dataclass(frozen=True)
class Overlap:
    """What two splits share.

    Parameters
    ----------
    first, second : str
        The splits.
    images : int
        Files that are in both.
    keys : int
        Patients (or cases, or images where a set tells no more) that are in both.
    questions : int
        Questions about one image that both ask in the same words.
    """

    first: str
    second: str
    images: int
    keys: int
    questions: int


def overlaps(
    splits: Mapping[str, Iterable[Example]], by_content: bool = False
) -> tuple[Overlap, ...]:
    """Compare every two splits of a data set.

    Parameters
    ----------
    splits : mapping of str to examples
    by_content : bool
        Compare the bytes of the files instead of their paths, which finds copies under another name
        and takes as long as reading every file.
    """
    seen = {name: _Seen.of(examples, by_content) for name, examples in splits.items()}
    return tuple(
        Overlap(
            first,
            second,
            len(seen[first].images & seen[second].images),
            len(seen[first].keys & seen[second].keys),
            len(seen[first].questions & seen[second].questions),
        )
        for first, second in combinations(seen, 2)
    )


@dataclass(frozen=True)
class _Seen:
    images: set[str]
    keys: set[str]
    questions: set[tuple[str, str]]

    @classmethod
    def of(cls, examples: Iterable[Example], by_content: bool) -> _Seen:
        seen = cls(set(), set(), set())
        for example in examples:
            names = [_digest(f) if by_content else str(f.resolve()) for f in example.files]
            seen.images.update(names)
            seen.keys.add(example.key)
            for turn in example.turns:
                seen.questions.update((names[0], _normal(wording)) for wording in turn.questions)
        return seen


def _normal(question: str) -> str:
    return " ".join(question.lower().split())


def _digest(path: Path) -> str:
    """Return a digest of a file, or of the files of a folder such as a DICOM series."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()
