"""The examples that all loaders yield: a study with questions, answers and texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from radfound.datasets.metadata import without_footer
from radfound.question import TASKS
from radfound.reading import read_study
from radfound.study.region import Box, Plane
from radfound.study.study import Study

KINDS = ("closed", "open", "")


@dataclass(frozen=True)
class Turn:
    """A target text about a study: answer, caption or report.

    Parameters
    ----------
    task : {"vqa", "caption", "report"}
    questions : tuple of str
        Wordings of the same question; empty if the task needs none.
    answer : str
    kind : {"closed", "open", ""}
        Whether the answer is one of a few, such as yes and no; "" if not stated.
    id : str
        The source's id of the question, or "".
    """

    task: str
    questions: tuple[str, ...]
    answer: str
    kind: str = ""
    id: str = ""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task is {self.task!r}; expected one of {', '.join(TASKS)}")
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; expected one of {KINDS}")


@dataclass(frozen=True)
class Example:
    """A study with its target texts.

    Parameters
    ----------
    key : str
        Unit that splits must not divide: the patient or case, or the image if neither is known.
    files : tuple of Path
    turns : tuple of Turn
    labels : dict
        Known classes: any of "modality", "plane", "region".
    text : str
        Caption, or "".
    source, split : str
    footer : bool
        Whether to cut off the lowest 6 % of the image.
    region : Box, Plane or None
        As `radfound.study.frames.make_frames` takes it.
    """

    key: str
    files: tuple[Path, ...]
    turns: tuple[Turn, ...]
    labels: dict[str, str] = field(default_factory=dict)
    text: str = ""
    source: str = ""
    split: str = "train"
    footer: bool = False
    region: Box | Plane | None = None

    def read(self) -> Study:
        """Load the study from its files."""
        study = read_study(list(self.files) if len(self.files) > 1 else self.files[0])
        if self.footer:
            study = Study(tuple(without_footer(image) for image in study.images))
        return study


@dataclass(frozen=True)
class Asked:
    """A question about one image, before `gather` groups questions by image."""

    image: Path
    key: str
    turn: Turn
    labels: dict[str, str] = field(default_factory=dict)


def gather(asked: Iterable[Asked], source: str, split: str, footer: bool = False) -> list[Example]:
    """Return one example for each image, with its questions in order."""
    by_image: dict[Path, list[Asked]] = {}
    for question in asked:
        by_image.setdefault(question.image, []).append(question)
    return [
        Example(
            questions[0].key,
            (image,),
            tuple(question.turn for question in questions),
            questions[0].labels,
            source=source,
            split=split,
            footer=footer,
        )
        for image, questions in by_image.items()
    ]
