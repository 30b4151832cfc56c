"""`key.json`: the unblinding data, kept from the readers and from the study's server."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from radfound.exceptions import ReaderStudyError
from radfound.question import ModelVersion
from radfound.reader_study.design.plan import KEY, Plan
from radfound.records.durable import replace_text
from radfound.validation import fault_in_file

SCHEMA = "radfound.reader_study_key/1"
PEOPLE = "texts"
"""The kind of a source whose texts people wrote; the others are "answers" and "server"."""


@dataclass(frozen=True)
class Text:
    """The text of one source about one case.

    Parameters
    ----------
    text : str
    answer_id : str or None
        Id of the answer, if a running server gave it.
    model : ModelVersion or None
        The weights that gave the answer, if known.
    """

    text: str
    answer_id: str | None = None
    model: ModelVersion | None = None


@dataclass(frozen=True)
class KnownCase:
    """The unblinded data of a case.

    Parameters
    ----------
    name : str
        The case's id in `study.yaml`.
    images : tuple of str
        Ids of the images on the RadFound server.
    digest : str
        Digest of the study's content, see `radfound.study.study.Study.digest`.
    modality, organ_system : str or None
        Names from `radfound.study.taxonomy`, if known.
    reference : str or None
        Reference text for automatic metrics.
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
    """The unblinding key of a plan.

    Parameters
    ----------
    study : str
        Random; names the study in the ids of exported corrections.
    seed : int
        Seed of all orders.
    sources : dict of str to str
        The sources' names and kinds ("answers", "server" or "texts"), in the order of the configuration.
    reference : str or None
        The source whose texts are the references; metrics leave it out.
    cases : dict of str to KnownCase
        By the cases' random ids.
    candidates : dict of str to str
        The source of each candidate's id.
    repeats : tuple of str
        Ids of the items that repeat a case.
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
        """Load the key of a plan; ReaderStudyError if missing, damaged or of another plan."""
        path = plan.folder / KEY
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if value.pop("schema") != SCHEMA:
                raise ValueError(f"expected the schema {SCHEMA}")
            key = TypeAdapter(cls).validate_python(value)
        except FileNotFoundError:
            raise ReaderStudyError(
                f"{plan.folder}: no {KEY} there; it was made with the study, and without it the sources of the "
                "rated texts are unknown"
            ) from None
        except ValidationError as error:
            raise ReaderStudyError(fault_in_file(error, str(path))) from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ReaderStudyError(f"{path}: not the key of a reader study ({error!r})") from error
        shown = {
            candidate.id
            for reader in plan.readers
            for item in reader.items
            for candidate in item.candidates
        }
        if shown != set(key.candidates) or {case.id for case in plan.cases} != set(key.cases):
            raise ReaderStudyError(f"{path}: is of another study than plan.json in the same folder")
        return key

    def save(self, folder: Path) -> None:
        """Write `key.json`; only its owner may read it."""
        text = json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, ensure_ascii=False)
        path = folder / KEY
        path.touch(0o600)
        replace_text(path, text + "\n")
        path.chmod(0o600)
