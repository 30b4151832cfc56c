"""`key.json`: what the readers and the server that they use must not know."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from radfound.exceptions import ReaderStudyError
from radfound.question import ModelVersion
from radfound.reader_study.design.plan import KEY, Plan
from radfound.records.durable import replace_text

SCHEMA = "radfound.reader_study_key/1"
PEOPLE = "texts"
"""The kind of a source whose texts people wrote; the others are "answers" and "server"."""


@dataclass(frozen=True)
class Text:
    """What one source says about one case.

    Parameters
    ----------
    text : str
    answer_id : str or None
        Of the answer, where a running server gave it.
    model : ModelVersion or None
        Which weights spoke, where that is known.
    """

    text: str
    answer_id: str | None = None
    model: ModelVersion | None = None


@dataclass(frozen=True)
class KnownCase:
    """What is known of a case.

    Parameters
    ----------
    name : str
        Its owner's name for it.
    images : tuple of str
        Under which ids the server of the studies knows the images.
    digest : str
        Of the study's content, see `radfound.study.study.Study.digest`.
    modality, organ_system : str or None
        As `radfound.study.taxonomy` names them, where it knows them.
    reference : str or None
        What automatic metrics compare the texts with.
    texts : dict of str to Text
        By source.
    """

    name: str
    images: tuple[str, ...]
    digest: str
    modality: str | None
    organ_system: str | None
    reference: str | None
    texts: dict[str, Text]


@dataclass(frozen=True)
class Key:
    """What resolves a plan.

    Parameters
    ----------
    study : str
        Random; names the study in the ids of exported corrections.
    seed : int
        That all orders came from.
    sources : dict of str to str
        The sources' names and kinds ("answers", "server" or "texts"), in the order of the configuration.
    reference : str or None
        The source whose texts are the references, which metrics are therefore not asked about.
    cases : dict of str to KnownCase
        By the cases' random ids.
    candidates : dict of str to str
        The source of each candidate's id.
    repeats : tuple of str
        Ids of the items that show a case for the second time.
    """

    study: str
    seed: int
    sources: dict[str, str]
    reference: str | None
    cases: dict[str, KnownCase]
    candidates: dict[str, str]
    repeats: tuple[str, ...]

    @classmethod
    def load(cls, plan: Plan) -> Key:
        """Read the key of a plan; ReaderStudyError if it is missing, damaged or another plan's."""
        path = plan.folder / KEY
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if value.pop("schema") != SCHEMA:
                raise ValueError(f"expected the schema {SCHEMA}")
            cases = {name: _case(row) for name, row in value.pop("cases").items()}
            key = cls(cases=cases, repeats=tuple(value.pop("repeats")), **value)
        except FileNotFoundError:
            raise ReaderStudyError(
                f"{plan.folder}: no {KEY} there; it was made with the study, and without it nobody can say whose "
                "texts were rated"
            ) from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ReaderStudyError(f"{path}: not the key of a reader study ({error!r})") from error
        shown = {
            candidate.id
            for reader in plan.readers
            for item in reader.items
            for candidate in item.candidates
        }
        if shown != set(key.candidates) or {case.id for case in plan.cases} != set(key.cases):
            raise ReaderStudyError(f"{path}: is of another study than plan.json beside it")
        return key

    def save(self, folder: Path) -> None:
        """Write `key.json`; only its owner may read it."""
        text = json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, ensure_ascii=False)
        path = folder / KEY
        path.touch(0o600)
        replace_text(path, text + "\n")
        path.chmod(0o600)


def _case(row: dict[str, Any]) -> KnownCase:
    texts = {source: _text(said) for source, said in row.pop("texts").items()}
    return KnownCase(texts=texts, images=tuple(row.pop("images")), **row)


def _text(said: dict[str, Any]) -> Text:
    model = said.get("model")
    return Text(said["text"], said.get("answer_id"), ModelVersion(**model) if model else None)
