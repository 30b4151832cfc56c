"""The plan of a reader study, stored as `plan.json`.

A study is one folder. `create` writes it, the server loads `plan.json` and `cases/` and writes
`ratings.sqlite`, the analysis uses all files:

- `plan.json`: instructions, criteria, cases, and the items of each reader in order. It names no
  source of a text, no original case and no seed, and holds digests instead of tokens.
- `key.json`: the source of each text, the original names of cases, and their modality,
  organ system and reference text. The server never opens it: this is the blinding.
- `cases/`: copies of the study files under random names.
- `tokens.txt`: one address with token per reader; only the file's owner may read it.
- `ratings.sqlite`: see `radfound.reader_study.rating.ratings`.

The browser may receive the texts, the criteria, the question and context of a case, and the ids of items
and candidates. Items and candidates have separate ids for each reader and each showing. The id of a case must
stay on the server, because a repeated case has the same id: so address images by item, as in `/items/{item}/images/0`.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator

from radfound.exceptions import NotFoundError, ReaderStudyError
from radfound.question import TASKS
from radfound.reader_study.design.fields import (
    FromFile,
    Id,
    Some,
    Stripped,
    Whole,
    Words,
    check_unique,
    load_from,
)
from radfound.records.durable import replace_text
from radfound.validation import Truth, kind_of, one_of

SCHEMA = "radfound.reader_study/1"
PLAN, KEY, TOKENS, CASES, RATINGS = "plan.json", "key.json", "tokens.txt", "cases", "ratings.sqlite"
"""File names in a study's folder."""

SCALE = (1, 2, 3, 4, 5)


def _in_cases(value: object) -> str:
    path = PurePosixPath(value) if isinstance(value, str) else PurePosixPath()
    if path.parts[:1] != (CASES,) or ".." in path.parts or len(path.parts) < 2:
        raise ValueError(f"found {value!r}; expected a file in {CASES}/")
    return str(path)


def _digest(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("is no SHA-256 in hexadecimal")
    return text


@dataclass(frozen=True)
class Criterion(FromFile):
    """A criterion, rated on a scale from 1 to 5.

    Parameters
    ----------
    key : str
        Name in files, such as "correctness".
    name : str
        Heading shown to the reader.
    description : str
        The question to be judged.
    anchors : tuple of 5 str
        Meaning of each point, from 1 to 5.
    better : {"high", "low"}
        The good end of the scale. For all default criteria this is 5.
    """

    key: Id
    name: Words
    description: Words
    anchors: tuple[Words, ...]
    better: Annotated[str, one_of(("high", "low"))] = "high"

    @property
    def best(self) -> int:
        """The point at the good end."""
        return SCALE[-1] if self.better == "high" else SCALE[0]

    @classmethod
    def _prepared(cls, value: object) -> object:
        super()._prepared(value)
        if not isinstance(value, Mapping) or "anchors" not in value:
            return value
        anchors = value["anchors"]
        if isinstance(anchors, Mapping):  # in YAML, anchors may be keyed by their points
            anchors = [anchors.get(point, anchors.get(str(point))) for point in SCALE]
        if (
            not isinstance(anchors, list | tuple)
            or len(anchors) != len(SCALE)
            or not all(isinstance(each, str) and each.strip() for each in anchors)
        ):
            raise ValueError("anchors need a text for each of the points 1 to 5, in this order")
        return {**value, "anchors": anchors}


@dataclass(frozen=True)
class Case(FromFile):
    """A study to be shown. Its id must not reach the browser.

    Parameters
    ----------
    id : str
        Random.
    images : tuple of str
        Files, or folders of DICOM, relative to the study's folder and with forward slashes. Several are the
        views of one study, in their order (see `Plan.paths`).
    task : {"vqa", "caption", "report"}
    question : str or None
        Required for "vqa".
    context : str or None
        Information for the reader besides the images, such as the indication.
    series : str or None
    volume : int or None
        As for `radfound.reading.read_study`, if a file or folder holds several.
    """

    id: Id
    images: Annotated[tuple[Annotated[str, BeforeValidator(_in_cases)], ...], Some]
    task: Annotated[str, one_of(TASKS)]
    question: Words | None = None
    context: Words | None = None
    series: Words | None = None
    volume: Whole | None = None


@dataclass(frozen=True)
class Candidate(FromFile):
    """A text to be rated, with a random id that is used only in this item."""

    id: Id
    text: Stripped


@dataclass(frozen=True)
class Item(FromFile):
    """One showing of a case to a reader.

    Parameters
    ----------
    id : str
        Random, different for every reader and every showing.
    case : str
        A case's id. Not for the browser.
    candidates : tuple of Candidate
        In shown order.
    """

    id: Id
    case: Id
    candidates: Annotated[tuple[Candidate, ...], Some]

    @cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs of candidate ids for preferences, in shown order."""
        return tuple(itertools.combinations([each.id for each in self.candidates], 2))

    def candidate(self, candidate_id: str) -> Candidate:
        """Return a candidate; NotFoundError if the item has none with that id."""
        return _found(self.candidates, candidate_id, "candidate")


@dataclass(frozen=True)
class Reader(FromFile):
    """A reader of the study.

    Parameters
    ----------
    id : str
        Name given by the study's owner, such as "reader-1"; may be shown to that reader.
    token_sha256 : str
        Hexadecimal digest of the token that opens this reader's pages.
    items : tuple of Item
        In shown order.
    """

    id: Id
    token_sha256: Annotated[Words, AfterValidator(_digest)]
    items: Annotated[tuple[Item, ...], Some]

    def item(self, item_id: str) -> Item:
        """Return an item; NotFoundError if this reader has none with that id."""
        return _found(self.items, item_id, "item")


@dataclass(frozen=True)
class Plan(FromFile):
    """A reader study.

    Parameters
    ----------
    title : str
    instructions : str
        Plain text for the reader; paragraphs are separated by blank lines.
    criteria : tuple of Criterion
    pairwise : bool
        Whether a preference is asked for each pair of texts (`Item.pairs`).
    comment : bool
        Whether a comment may be written under each text. A comment is never required.
    cases : tuple of Case
    readers : tuple of Reader
    folder : Path
        The study's folder; no part of `plan.json`.
    address : str
        Address for the readers, such as "https://study.example.org"; empty if unknown.
    """

    NOT_IN_FILE = ("folder",)

    title: Words
    instructions: Stripped
    criteria: Annotated[tuple[Criterion, ...], Some]
    pairwise: Truth
    comment: Truth
    cases: Annotated[tuple[Case, ...], Some]
    readers: Annotated[tuple[Reader, ...], Some]
    folder: Path = field(default=Path(), compare=False)
    address: Stripped = ""

    @classmethod
    def load(cls, folder: str | Path) -> Plan:
        """Load `plan.json` of a study's folder.

        Raises
        ------
        ReaderStudyError
            If the file is missing, or a field is missing, unknown or of the wrong type; the message says where.
        """
        path = Path(folder) / PLAN
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ReaderStudyError(
                f"{folder}: no {PLAN} there; expected the folder that `radfound reader-study create` made"
            ) from None
        except (OSError, ValueError) as error:
            raise ReaderStudyError(
                f"{path}: cannot be read ({error}); make the study again"
            ) from error
        if not isinstance(value, dict):
            raise ReaderStudyError(f"{PLAN}: found {kind_of(value)}; expected an object")
        if (schema := value.pop("schema", None)) != SCHEMA:
            raise ReaderStudyError(f"{PLAN}: schema is {schema!r}; this version reads {SCHEMA!r}")
        return replace(load_from(cls, PLAN, value), folder=Path(folder))

    def _checked(self) -> Plan:
        cases = {case.id for case in self.cases}
        items = [item for reader in self.readers for item in reader.items]
        for item in items:
            if item.case not in cases:
                raise ValueError(f"item {item.id} is of an unknown case {item.case}")
        check_unique("criteria", [each.key for each in self.criteria])
        check_unique("cases", [each.id for each in self.cases])
        check_unique("readers", [each.id for each in self.readers])
        check_unique("items", [item.id for item in items])
        check_unique("candidates", [each.id for item in items for each in item.candidates])
        return self

    def save(self) -> None:
        """Write `plan.json` into the folder, in one step."""
        content = asdict(self)
        del content["folder"]
        text = json.dumps({"schema": SCHEMA, **content}, indent=1, ensure_ascii=False)
        replace_text(self.folder / PLAN, text + "\n")

    @property
    def ratings_path(self) -> Path:
        """Path of the ratings."""
        return self.folder / RATINGS

    def reader(self, reader_id: str) -> Reader:
        """Return a reader; NotFoundError if there is none with that id."""
        return _found(self.readers, reader_id, "reader")

    def reader_of_token(self, token: str) -> Reader | None:
        """Return the reader with this token, or None; takes the same time for every wrong token."""
        digest = token_digest(token)
        found = None
        for reader in self.readers:
            if hmac.compare_digest(digest, reader.token_sha256):
                found = reader
        return found

    def case(self, case_id: str) -> Case:
        """Return a case; NotFoundError if there is none with that id."""
        return _found(self.cases, case_id, "case")

    def criterion(self, key: str) -> Criterion:
        """Return a criterion; NotFoundError if there is none with that key."""
        for criterion in self.criteria:
            if criterion.key == key:
                return criterion
        raise NotFoundError(f"no criterion {key!r} in this study")

    def paths(self, case: Case) -> list[Path]:
        """Return a case's files and folders, as a list for `radfound.reading.read_study`."""
        return paths_of(case, self.folder)


def paths_of(case: Case, folder: Path) -> list[Path]:
    """Return a case's files and folders in a study's folder."""
    return [folder / PurePosixPath(image) for image in case.images]


def token_digest(token: str) -> str:
    """Return the SHA-256 of a token, in hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


_Named = TypeVar("_Named", Case, Candidate, Item, Reader)


def _found(rows: Sequence[_Named], wanted: str, what: str) -> _Named:
    for row in rows:
        if row.id == wanted:
            return row
    raise NotFoundError(f"no {what} {wanted!r} in this study")
