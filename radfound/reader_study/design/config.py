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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from radfound.exceptions import ReaderStudyError
from radfound.question import TASKS
from radfound.reader_study.design.criteria import DEFAULT_CRITERIA
from radfound.reader_study.design.fields import (
    FromFile,
    Id,
    Some,
    Whole,
    Words,
    Written,
    check_unique,
    load_from,
)
from radfound.reader_study.design.plan import Criterion
from radfound.study.taxonomy import ORGAN_SYSTEMS
from radfound.validation import Truth, kind_of, one_of

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

_DEFAULTS = {criterion.key: criterion for criterion in DEFAULT_CRITERIA}


def _beside(value: object, info: ValidationInfo) -> object:
    """Return a path relative to the YAML file, whose folder is the context."""
    return _folder(info) / value if isinstance(value, str) and value.strip() else value


def _folder(info: ValidationInfo) -> Path:
    return Path(info.context or "")


def _existing(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"found {kind_of(value)}; expected a path")
    path = _folder(info) / value
    if not path.exists():
        raise ValueError(f"{path} not found; paths are relative to the YAML file")
    return path


def _server(address: str) -> str:
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"found {address!r}; expected http://HOST:PORT")
    return address.rstrip("/")


def _names(value: object) -> object:
    """Return the readers' names; a number stands for reader-1, reader-2, ..."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_READERS:
        return [f"reader-{number}" for number in range(1, value + 1)]
    if isinstance(value, list) and 1 <= len(value) <= MAX_READERS:
        return value
    found = value if isinstance(value, int | float) else kind_of(value)
    raise ValueError(f"found {found}; expected how many (1 to {MAX_READERS}), or a list of names")


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"found {kind_of(value)}; expected a share")
    if not 0 <= value <= MAX_REPEATS:
        raise ValueError(f"found {value}; expected a share of the cases from 0 to {MAX_REPEATS}")
    return float(value)


def _criterion(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value not in _DEFAULTS:
        raise ValueError(
            f"found {value!r}; expected one of {', '.join(_DEFAULTS)}, or key, name, description and "
            "anchors of your own"
        )
    return _DEFAULTS[value]


@dataclass(frozen=True)
class SourceConfig(FromFile):
    """A source of texts to be compared.

    Parameters
    ----------
    name : str
        Never shown to a reader.
    answers : Path or None
        An answers.csv of `radfound bench`.
    column : str
        Column with the texts; empty without answers.
    server : str or None
        Address of a running RadFound server. With neither, the cases hold the texts.
    """

    name: Words
    answers: Annotated[Path | None, BeforeValidator(_beside)] = None
    column: Words = ""
    server: Annotated[Words, AfterValidator(_server)] | None = None

    @property
    def kind(self) -> str:
        """Kind of source: "answers", "server" or "texts" (written by people)."""
        return "answers" if self.answers else "server" if self.server else "texts"

    def _checked(self) -> SourceConfig:
        if self.answers and self.server:
            raise ValueError("has answers and a server; give one, or make two sources")
        if self.column and not self.answers:
            raise ValueError("column applies to an answers file only; name the file under answers")
        return replace(self, column=self.column or "model") if self.answers else self


@dataclass(frozen=True)
class CaseConfig(FromFile):
    """A case as configured by the study's owner; see `docs/reader-study.md` for the fields."""

    id: Words
    images: Annotated[tuple[Annotated[Path, BeforeValidator(_existing)], ...], Some]
    task: Annotated[str, one_of(TASKS)]
    question: Words | None = None
    context: Words | None = None
    series: Words | None = None
    volume: Whole | None = None
    texts: dict[str, Written] = field(default_factory=dict)
    reference: Words | None = None
    answer_id: Words = ""
    server_images: tuple[Words, ...] = ()
    modality: Words | None = None
    organ_system: Annotated[str, one_of(ORGAN_SYSTEMS)] | None = None

    def _checked(self) -> CaseConfig:
        if (self.task == "vqa") != (self.question is not None):
            is_vqa = self.task == "vqa"
            missing = "needs a question" if is_vqa else f"is a {self.task}, which has no question"
            raise ValueError(f"{self.id} {missing}")
        return replace(
            self,
            answer_id=self.answer_id or self.id,
            server_images=self.server_images or (self.id,),
        )


@dataclass(frozen=True)
class Config(FromFile):
    """A whole `study.yaml`; `readers` are names, `seed` is None if not set, `task` is that of the cases."""

    title: Words
    readers: Annotated[tuple[Id, ...], BeforeValidator(_names)]
    sources: Annotated[tuple[SourceConfig, ...], Some]
    cases: Annotated[tuple[CaseConfig, ...], Some]
    instructions: Words = INSTRUCTIONS
    repeats: Annotated[float, BeforeValidator(_share)] = 0.0
    pairwise: Truth = False
    comment: Truth = True
    seed: Whole | None = None
    address: Words = ADDRESS
    criteria: Annotated[tuple[Annotated[Criterion, BeforeValidator(_criterion)], ...], Some] = (
        DEFAULT_CRITERIA
    )
    reference: Words | None = None
    task: Annotated[str, one_of(TASKS)] | None = None

    @classmethod
    def _prepared(cls, value: object) -> object:
        """Give each case its task: "vqa" with a question, else that of the whole study."""
        super()._prepared(value)
        if not isinstance(value, Mapping):
            return value
        # An empty field is one that is not set.
        top = {name: part for name, part in value.items() if part is not None}
        cases = top.get("cases")
        if isinstance(cases, list):
            top["cases"] = [_with_task(case, top.get("task")) for case in cases]
        return top

    def _checked(self) -> Config:
        check_unique("sources", [source.name for source in self.sources])
        check_unique("cases", [case.id for case in self.cases])
        check_unique("readers", self.readers)
        check_unique("criteria", [criterion.key for criterion in self.criteria])
        if self.pairwise and len(self.sources) < 2:
            raise ValueError("pairwise needs two sources or more; found one")
        if self.reference not in (None, *(source.name for source in self.sources)):
            raise ValueError(f"reference: {self.reference!r} is none of the sources")
        expected = [source.name for source in self.sources if source.kind == "texts"]
        for number, case in enumerate(self.cases, 1):
            _check_texts(f"cases {number} ({case.id})", case.texts, expected)
        return replace(self, address=self.address.rstrip("/"))


def _with_task(case: object, task: object) -> object:
    if not isinstance(case, Mapping):
        return case
    case = {name: part for name, part in case.items() if part is not None}
    default = "vqa" if case.get("question") else task
    return case if default is None else {"task": default, **case}


def _check_texts(place: str, texts: Mapping[str, str], expected: Sequence[str]) -> None:
    """Check that a case has one text for each source of the kind "texts"."""
    for name in texts:
        if name not in expected:
            raise ValueError(
                f"{place}: texts: {name!r} is none of the sources whose texts are given with the cases"
            )
    if missing := [name for name in expected if name not in texts]:
        raise ValueError(f"{place}: texts: that of {missing[0]!r} is missing")


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
    return load_from(Config, file.name, value, context=file.parent)
