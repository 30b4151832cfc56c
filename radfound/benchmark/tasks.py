"""RadVLBench's tasks: questions about studies, and the items of the training split.

- metadata: questions about modality, plane and region of a figure; validation and test split.
- vqa: closed and open questions of the test split, with a row for images that are not in training. From the kit
  also the questions of VQA-RAD and VQA-Med about figures of MedPix's held-out cases, in that row only.
- caption, report: texts about the studies of the test split.
- trained: questions that the model was trained on (`--train-questions`).

`--data` is the folder of this project's data kit, a JSONL file of your own, or NAME=FOLDER for a layout of
`radfound.datasets`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from radfound.datasets import READERS, Example, Turn, open_dataset
from radfound.datasets.kit import Kit, synpic
from radfound.datasets.metadata import METADATA_QUESTIONS
from radfound.exceptions import DatasetError, RequestError
from radfound.question import Question
from radfound.study.taxonomy import MODALITIES, modality_of, organ_system_of

TASKS = {"metadata": 8, "vqa": 24, "caption": 80, "report": 160}
"""Tasks with their token limits."""

TRAINED = "trained"
NEW_IMAGE, IN_TRAINING = ", image not in training", ", trained on"
SPLITS = ("validation", "test", "both")
ROWS = (
    *(f"{group}, {split}" for group in (*METADATA_QUESTIONS, "all") for split in SPLITS),
    *(f"{kind}{part}" for kind in ("closed", "open") for part in ("", NEW_IMAGE, IN_TRAINING)),
    "caption",
    "report",
)
"""The rows of the table in order."""

NOT_STATED = "not stated"
_KIT_SOURCES = {"metadata": "MedPix-2.0", "vqa": "VQA-RAD", "caption": "MedPix-2.0", "report": "MedPix-2.0"}  # fmt: skip
_CODES = {"MRI": "MR", "X-ray": "DX", "mammography": "MG", "ultrasound": "US"}


@dataclass(frozen=True)
class Item:
    """One question or text about one study.

    Parameters
    ----------
    id : str
    example : Example
    turn : Turn
        With the reference answer.
    group : str
        "modality", "plane", "region", "closed", "open", "caption" or "report"; items of a group have the same metrics.
    rows : tuple of str
        The rows of the table that include the item.
    """

    id: str
    example: Example
    turn: Turn
    group: str
    rows: tuple[str, ...] = ()

    @property
    def question(self) -> Question:
        """The question in its first wording."""
        text = self.turn.questions[0] if self.turn.questions else None
        return Question(self.turn.task, text, region=self.example.region)

    @property
    def modality(self) -> str:
        """One of the names in `radfound.study.taxonomy.MODALITIES`, or "not stated"."""
        label = self.example.labels.get("modality", "")
        code = modality_of(_CODES.get(label, label))
        return MODALITIES[code] if code else NOT_STATED

    @property
    def organ_system(self) -> str:
        """One of `radfound.study.taxonomy.ORGAN_SYSTEMS`, from caption, question and answer, or "not stated"."""
        words = (self.example.text, *self.turn.questions[:1], self.turn.answer)
        return organ_system_of(" ".join(words)) or NOT_STATED


@dataclass(frozen=True)
class Task:
    """Items to answer, and the items of the training split.

    Parameters
    ----------
    name : str
    items, training : tuple of Item
    published : tuple of Item
        The publisher's whole training split, for predictors that see no picture; `training` where there is no other.
    """

    name: str
    items: tuple[Item, ...]
    training: tuple[Item, ...]
    published: tuple[Item, ...] = ()

    @property
    def max_new_tokens(self) -> int:
        """Token limit of an answer."""
        return TASKS["vqa" if self.name == TRAINED else self.name]

    @property
    def digest(self) -> str:
        """SHA-256 over questions, reference answers and the images' bytes."""
        found = hashlib.sha256()
        files = sorted({file for item in self.items for file in item.example.files})
        for file in files:
            found.update(hashlib.sha256(file.read_bytes()).digest())
        for item in self.items:
            fields = (item.id, item.question.text, item.turn.answer, item.rows)
            found.update(repr(fields).encode())
        return found.hexdigest()


class Source:
    """A data set on disk and its layout.

    Parameters
    ----------
    data : str
        A folder of the kit, a path that ends in ".jsonl", or NAME=FOLDER with a name of `READERS`.
    """

    def __init__(self, data: str):
        layout, equals, folder = data.partition("=")
        if equals and layout in READERS:
            self.layout, self.root = layout, Path(folder)
        else:
            self.layout, self.root = "jsonl" if data.endswith(".jsonl") else "kit", Path(data)
        self._read: dict[str, list[Example]] = {}

    def items(self, task: str, split: str, limit: int | None = None) -> list[Item]:
        """Return the items of a task in a split, from at most `limit` evenly chosen studies."""
        if split not in self._read:
            self._read[split] = list(open_dataset(self.layout, self.root, split))
        return _from_examples(
            task,
            (
                example
                for example in self._read[split]
                if self.layout != "kit" or example.source == _KIT_SOURCES[task]
            ),
            limit,
        )

    def pictures(self, split: str) -> set[str]:
        """Return the names of all images of a split that `items` has loaded."""
        return pictures_of(self._read[split])

    def held_out(self, limit: int | None = None) -> list[Item]:
        """Return the kit's questions about figures of held-out cases; none for other layouts."""
        examples = Kit(self.root).held_out_vqa() if self.layout == "kit" else ()
        return _from_examples("vqa", examples, limit)

    def published(self) -> list[Item]:
        """Return all training questions as the publishers split them, for predictors that see no picture."""
        if self.layout != "kit":
            return self.items("vqa", "train")
        return _from_examples("vqa", Kit(self.root).vqa("train", official=True))


def load_task(name: str, source: Source, limit: int | None = None) -> Task:
    """Load a task with its items.

    Raises
    ------
    DatasetError
        If the data are missing or have no items of this task.
    """
    if name not in TASKS:
        raise RequestError(f"--tasks: found {name!r}; expected some of {', '.join(TASKS)}")
    training = source.items(name, "train")
    if name == "metadata":
        items = _metadata_rows(
            (split, item)
            for split in ("validation", "test")
            for item in source.items(name, split, limit)
        )
    elif name == "vqa":
        items = _question_rows(source.items(name, "test", limit), source.pictures("train"))
        items += [_in_rows(item, item.group + NEW_IMAGE) for item in source.held_out(limit)]
    else:
        items = [_in_rows(item, item.group) for item in source.items(name, "test", limit)]
    for split, found in (("test", items), ("train", training)):
        if not found:
            raise DatasetError(
                f"{source.root}: no items of the task {name!r} in the {split} split; leave the task out with "
                "--tasks, or add such studies (docs/data.md shows the fields)"
            )
    published = source.published() if name == "vqa" else training
    return Task(name, tuple(items), tuple(training), tuple(published))


def trained_task(source: Source, count: int) -> Task:
    """Return about `count` questions that the model was trained on, of evenly chosen images.

    Raises
    ------
    DatasetError
        If the data have no training questions.
    """
    items = source.items("vqa", "train")
    studies = studies_of(items)
    if not studies:
        raise DatasetError(f"{source.root}: no training questions; leave --train-questions out")
    wanted = max(2, round(len(studies) * min(1.0, count / len(items))))
    chosen = source.items("vqa", "train", wanted)
    return Task(
        TRAINED, tuple(_in_rows(item, item.group + IN_TRAINING) for item in chosen), tuple(items)
    )


def studies_of(items: Iterable[Item]) -> list[Example]:
    """Return the studies of items, each once."""
    return list({id(item.example): item.example for item in items}.values())


def is_new(item: Item) -> bool:
    """Whether the model was not trained on the item's image."""
    return any(row.endswith(NEW_IMAGE) for row in item.rows)


def calibration_items(source: Source) -> list[Item]:
    """Return the questions of the validation split, including those on metadata."""
    return [item for name in ("metadata", "vqa") for item in source.items(name, "validation")]


def _from_examples(task: str, examples: Iterable[Example], limit: int | None = None) -> list[Item]:
    chosen = [items for example in examples if (items := list(_items(task, example)))]
    if limit is not None:
        chosen = chosen[:: max(1, len(chosen) // limit)][:limit]
    return [item for items in chosen for item in items]


def _items(task: str, example: Example) -> Iterator[Item]:
    if task == "metadata":
        turns = [
            (name, Turn("vqa", METADATA_QUESTIONS[name], example.labels[name]))
            for name in METADATA_QUESTIONS
            if name in example.labels
        ]
    else:
        own = [turn for turn in example.turns if turn.task == task and not _on_metadata(turn)]
        turns = [((turn.kind or "open") if task == "vqa" else task, turn) for turn in own]
    for number, (group, turn) in enumerate(turns):
        name = turn.id or f"{example.key}/{example.files[0].stem}/{group}/{number}"
        yield Item(name, example, turn, group)


def _on_metadata(turn: Turn) -> bool:
    return turn.questions in METADATA_QUESTIONS.values()


def _in_rows(item: Item, *rows: str) -> Item:
    return Item(item.id, item.example, item.turn, item.group, rows)


def _metadata_rows(items: Iterable[tuple[str, Item]]) -> list[Item]:
    return [
        _in_rows(
            item,
            *(f"{group}, {split}" for group in (item.group, "all") for split in (own, "both")),
        )
        for own, item in items
    ]


def _question_rows(items: Sequence[Item], training: set[str]) -> list[Item]:
    found = []
    for item in items:
        new = not pictures_of([item.example]) & training
        rows = (item.group, item.group + NEW_IMAGE)
        found.append(_in_rows(item, *rows[: 1 + new]))
    return found


def pictures_of(examples: Iterable[Example]) -> set[str]:
    """Return the names of the images of examples; one picture has one name in all sets of the kit."""
    return {synpic(str(file)) for example in examples for file in example.files}
