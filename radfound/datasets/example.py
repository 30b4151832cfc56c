"""What every reader of this package yields: a study, and what to say about it."""

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
    """One thing to learn to say about a study.

    Parameters
    ----------
    task : {"vqa", "caption", "report"}
    questions : tuple of str
        Wordings of the same question; empty where the task needs none.
    answer : str
    kind : {"closed", "open", ""}
        Whether the answer is one of few, such as yes and no; "" where the source does not say.
    id : str
        The source's own name of the question, "" where it has none.
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
    """A study, what to say about it, and how to read it.

    Parameters
    ----------
    key : str
        What must not be divided between splits: the case, or the image where there is no case.
    files : tuple of Path
    turns : tuple of Turn
    labels : dict
        Any of "modality", "plane", "region": what is known of it as a class.
    text : str
        Caption, or "" where there is none.
    source, split : str
    footer : bool
        Whether the lowest 6 % of the image is to be cut off.
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
        """Read the study from its files."""
        study = read_study(list(self.files) if len(self.files) > 1 else self.files[0])
        if self.footer:
            study = Study(tuple(without_footer(image) for image in study.images))
        return study


@dataclass(frozen=True)
class Asked:
    """A question about one image, before all that is asked about the image is gathered."""

    image: Path
    key: str
    turn: Turn
    labels: dict[str, str] = field(default_factory=dict)


def gather(asked: Iterable[Asked], source: str, split: str, footer: bool = False) -> list[Example]:
    """Return one example for each image, with its questions in their order."""
    by_image: dict[Path, list[Asked]] = {}
    for one in asked:
        by_image.setdefault(one.image, []).append(one)
    return [
        Example(
            some[0].key,
            (image,),
            tuple(one.turn for one in some),
            some[0].labels,
            source=source,
            split=split,
            footer=footer,
        )
        for image, some in by_image.items()
    ]
