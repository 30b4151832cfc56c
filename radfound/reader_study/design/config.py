"""`study.yaml`: the configuration of a reader study.

    title: Captions of chest radiographs
    readers: 3                      # or a list of names: [anna, ben, chris]
    repeats: 0.2                    # share of the cases that each reader sees a second time
    pairwise: true                  # ask for a preference in each pair of texts
    comment: true                   # a free comment under each text
    seed: 7                         # of all orders
    sources:
      - name: radfound-mini
        answers: runs/bench/answers.csv     # of `radfound bench`; column: model
      - name: served
        server: http://127.0.0.1:8000       # queried by `create`, for each case
      - name: radiologist                   # texts are below, with the cases
    reference: radiologist          # source of the reference texts for automatic metrics
    cases:
      - id: ct01
        images: [ct01.nii.gz]       # relative to study.yaml; several are the views of one study
        task: report                # or caption, or vqa with a question
        texts: {radiologist: "Findings: ..."}

Every field is described in `docs/reader-study.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from radfound.exceptions import ReaderStudyError
from radfound.question import TASKS
from radfound.reader_study.design.criteria import DEFAULT_CRITERIA
from radfound.reader_study.design.fields import (
    bool_field,
    check_fields,
    check_unique,
    checked_id,
    list_field,
    object_of,
    optional_number_field,
    optional_text_field,
    text_field,
)
from radfound.reader_study.design.plan import Criterion, criterion_from
from radfound.study.taxonomy import ORGAN_SYSTEMS
from radfound.validation import kind_of

INSTRUCTIONS = """You will see studies, one after the other, and beside each some texts about it. The texts come \
from different authors, in an order that changes; who wrote what is not shown, and please do not try to guess.

Look at the study first. Then rate every text on its own, on every scale; the meaning of each point of the marked scale \
is shown below the texts. There are no right ratings; use the whole scale. Where there is room for a comment, you may \
write what a text should say: begin with "Instead:".

Every rating is saved as you give it. You can stop at any time, come back by the same link, and change your ratings.

This is a study of texts, not patient care: do not use anything here for diagnosis."""

HOST, PORT = "127.0.0.1", 8020
ADDRESS = f"http://{HOST}:{PORT}"
"""Default address of `radfound reader-study serve`."""

MAX_READERS, MAX_REPEATS = 100, 0.5

_FIELDS = (
    "title", "instructions", "readers", "repeats", "pairwise", "comment", "seed", "address", "criteria",
    "sources", "reference", "task", "cases",
)  # fmt: skip
_CASE_FIELDS = (
    "id", "images", "task", "question", "context", "series", "volume", "texts", "reference",
    "answer_id", "server_images", "modality", "organ_system",
)  # fmt: skip
_DEFAULTS = {criterion.key: criterion for criterion in DEFAULT_CRITERIA}


@dataclass(frozen=True)
class SourceConfig:
    """A source of texts to be compared.

    Parameters
    ----------
    name : str
        Never shown to a reader.
    answers : Path or None
        An answers.csv of `radfound bench`.
    column : str
        Column with the texts.
    server : str or None
        Address of a running RadFound server. With neither, the cases hold the texts.
    """

    name: str
    answers: Path | None = None
    column: str = "model"
    server: str | None = None

    @property
    def kind(self) -> str:
        """Kind of source: "answers", "server" or "texts" (written by people)."""
        return "answers" if self.answers else "server" if self.server else "texts"


@dataclass(frozen=True)
class CaseConfig:
    """A case as configured by the study's owner; see `docs/reader-study.md` for the fields."""

    id: str
    images: tuple[Path, ...]
    task: str
    question: str | None
    context: str | None
    series: str | None
    volume: int | None
    texts: Mapping[str, str]
    reference: str | None
    answer_id: str
    server_images: tuple[str, ...]
    modality: str | None
    organ_system: str | None


@dataclass(frozen=True)
class Config:
    """A whole `study.yaml`; `readers` are names, `seed` is None if not set."""

    title: str
    instructions: str
    readers: tuple[str, ...]
    repeats: float
    pairwise: bool
    comment: bool
    seed: int | None
    address: str
    criteria: tuple[Criterion, ...]
    sources: tuple[SourceConfig, ...]
    reference: str | None
    cases: tuple[CaseConfig, ...]


def read_config(path: str | Path) -> Config:
    """Load a `study.yaml`.

    Raises
    ------
    ReaderStudyError
        If the file cannot be read, or a field is missing, unknown or of the wrong type; the message says where.
    """
    file = Path(path)
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReaderStudyError(f"--config: {file} not found; expected a YAML file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ReaderStudyError(f"{file}: cannot be read as YAML ({error})") from error
    name = file.name
    top = object_of(name, value)
    check_fields(name, top, ("title", "readers", "sources", "cases"), _FIELDS)
    sources = list_field(name, top, "sources", lambda place, one: _source(place, one, file.parent))
    check_unique(f"{name}, sources", [source.name for source in sources])
    task = _task(name, top, None)
    cases = list_field(
        name, top, "cases", lambda place, one: _case(place, one, file.parent, task, sources)
    )
    check_unique(f"{name}, cases", [case.id for case in cases])
    pairwise = bool_field(name, top, "pairwise", False)
    if pairwise and len(sources) < 2:
        raise ReaderStudyError(f"{name}: pairwise needs two sources or more; found one")
    reference = optional_text_field(name, top, "reference")
    if reference is not None and reference not in [source.name for source in sources]:
        raise ReaderStudyError(f"{name}: reference: {reference!r} is none of the sources")
    return Config(
        text_field(name, top, "title"),
        optional_text_field(name, top, "instructions") or INSTRUCTIONS,
        _readers(name, top["readers"]),
        _repeats(name, top.get("repeats", 0)),
        pairwise,
        bool_field(name, top, "comment", True),
        optional_number_field(name, top, "seed"),
        (optional_text_field(name, top, "address") or ADDRESS).rstrip("/"),
        _criteria(name, top),
        sources,
        reference,
        cases,
    )


def _readers(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_READERS:
        return tuple(f"reader-{number}" for number in range(1, value + 1))
    if isinstance(value, list) and 1 <= len(value) <= MAX_READERS:
        names = [checked_id(f"{name}: reader {k}", each) for k, each in enumerate(value, 1)]
        check_unique(f"{name}, readers", names)
        return tuple(names)
    found = value if isinstance(value, int | float) else kind_of(value)
    raise ReaderStudyError(
        f"{name}: readers: found {found}; expected how many (1 to {MAX_READERS}), or a list of names"
    )


def _repeats(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ReaderStudyError(f"{name}: repeats: found {kind_of(value)}; expected a share")
    if not 0 <= value <= MAX_REPEATS:
        raise ReaderStudyError(
            f"{name}: repeats: found {value}; expected a share of the cases from 0 to {MAX_REPEATS}"
        )
    return float(value)


def _criteria(name: str, top: Mapping[str, Any]) -> tuple[Criterion, ...]:
    if top.get("criteria") is None:
        return DEFAULT_CRITERIA
    found = list_field(name, top, "criteria", _criterion)
    check_unique(f"{name}, criteria", [criterion.key for criterion in found])
    return found


def _criterion(place: str, value: object) -> Criterion:
    if not isinstance(value, str):
        return criterion_from(place, value)
    if value not in _DEFAULTS:
        raise ReaderStudyError(
            f"{place}: found {value!r}; expected one of {', '.join(_DEFAULTS)}, or key, name, description and "
            "anchors of your own"
        )
    return _DEFAULTS[value]


def _source(place: str, value: object, folder: Path) -> SourceConfig:
    row = object_of(place, value)
    check_fields(place, row, ("name",), ("answers", "column", "server"))
    answers = optional_text_field(place, row, "answers")
    server = optional_text_field(place, row, "server")
    if answers and server:
        raise ReaderStudyError(f"{place}: has answers and a server; give one, or make two sources")
    if server and not server.startswith(("http://", "https://")):
        raise ReaderStudyError(f"{place}: server: found {server!r}; expected http://HOST:PORT")
    if "column" in row and not answers:
        raise ReaderStudyError(
            f"{place}: column applies to an answers file only; name the file under answers"
        )
    return SourceConfig(
        text_field(place, row, "name"),
        folder / answers if answers else None,
        optional_text_field(place, row, "column") or "model",
        server.rstrip("/") if server else None,
    )


def _task(place: str, row: Mapping[str, Any], default: str | None) -> str | None:
    task = row.get("task", default)
    if task is not None and task not in TASKS:
        raise ReaderStudyError(f"{place}: task: found {task!r}; expected {' or '.join(TASKS)}")
    return task


def _case(
    place: str,
    value: object,
    folder: Path,
    default_task: str | None,
    sources: Sequence[SourceConfig],
) -> CaseConfig:
    row = object_of(place, value)
    check_fields(place, row, ("id", "images"), _CASE_FIELDS)
    name = text_field(place, row, "id")
    place = f"{place} ({name})"
    question = optional_text_field(place, row, "question")
    task = _task(place, row, "vqa" if question else default_task)
    if task is None:
        raise ReaderStudyError(f"{place}: task is missing; expected {' or '.join(TASKS)}")
    if (task == "vqa") != (question is not None):
        missing = "needs a question" if task == "vqa" else f"is a {task}, which has no question"
        raise ReaderStudyError(f"{place}: {missing}")
    organ_system = optional_text_field(place, row, "organ_system")
    if organ_system is not None and organ_system not in ORGAN_SYSTEMS:
        raise ReaderStudyError(
            f"{place}: organ_system: found {organ_system!r}; expected one of {', '.join(ORGAN_SYSTEMS)}"
        )
    return CaseConfig(
        name,
        list_field(place, row, "images", lambda at, one: _image(at, one, folder)),
        task,
        question,
        optional_text_field(place, row, "context"),
        optional_text_field(place, row, "series"),
        optional_number_field(place, row, "volume"),
        _texts(place, row.get("texts", {}), sources),
        optional_text_field(place, row, "reference"),
        optional_text_field(place, row, "answer_id") or name,
        _server_images(place, row, name),
        optional_text_field(place, row, "modality"),
        organ_system,
    )


def _texts(place: str, value: object, sources: Sequence[SourceConfig]) -> Mapping[str, str]:
    """Return the texts given with a case, one for each source of the kind "texts"."""
    texts = object_of(f"{place}: texts", value)
    expected = [source.name for source in sources if source.kind == "texts"]
    for name, text in texts.items():
        if name not in expected:
            raise ReaderStudyError(
                f"{place}: texts: {name!r} is none of the sources whose texts are given with the cases"
            )
        if not isinstance(text, str) or not text.strip():
            raise ReaderStudyError(f"{place}: texts: that of {name!r} is empty or no text")
    if missing := [name for name in expected if name not in texts]:
        raise ReaderStudyError(f"{place}: texts: that of {missing[0]!r} is missing")
    return texts


def _image(place: str, value: object, folder: Path) -> Path:
    if not isinstance(value, str) or not value.strip():
        raise ReaderStudyError(f"{place}: found {kind_of(value)}; expected a path")
    path = folder / value
    if not path.exists():
        raise ReaderStudyError(f"{place}: {path} not found; paths are relative to the YAML file")
    return path


def _server_images(place: str, row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    if row.get("server_images") is None:
        return (name,)
    return list_field(
        place, row, "server_images", lambda at, one: text_field(at, {"id": one}, "id")
    )
