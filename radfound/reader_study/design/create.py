"""Create the folder of a reader study from its `study.yaml`."""

from __future__ import annotations

import logging
import os
import random
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from radfound.exceptions import ReaderStudyError, RequestError, StorageError, StudyError
from radfound.reader_study.design.config import CaseConfig, Config, read_config
from radfound.reader_study.design.key import Key, KnownCase, Text
from radfound.reader_study.design.order import Showing, showings
from radfound.reader_study.design.plan import (
    CASES,
    TOKENS,
    Candidate,
    Case,
    Item,
    Plan,
    Reader,
    paths_of,
    token_digest,
)
from radfound.reader_study.design.sources import Row, texts_of
from radfound.reading.files import SUFFIXES
from radfound.records.durable import make_directory
from radfound.study.study import Study
from radfound.study.taxonomy import MODALITIES, ORGAN_SYSTEMS, modality_of, organ_system_of

logger = logging.getLogger(__name__)

_NOT_STATED = "not stated"  # as in answers.csv


@dataclass(frozen=True)
class Created:
    """A new study, and each reader's address with the token, which is stored only in `tokens.txt`."""

    plan: Plan
    key: Key
    addresses: dict[str, str]


def create(config: str | Path, out: str | Path) -> Created:
    """Create a reader study.

    Parameters
    ----------
    config : path
        The `study.yaml`.
    out : path
        The study's folder, which must not exist or be empty.

    Raises
    ------
    ReaderStudyError
        If the configuration is invalid, a text is missing, or a study cannot be loaded; the message says where.
    RequestError
        If the folder is not empty.
    StorageError
        If the folder cannot be written.
    """
    wanted = read_config(config)
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"--out: {folder} holds something already; name a new folder")
    texts, rows = _texts(wanted)
    try:
        make_directory(folder)
        return _write(wanted, folder, texts, rows)
    except BaseException as error:  # the folder was empty: remove the partial study
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise StorageError(f"--out: {folder} cannot be written ({error.strerror})") from error
        raise


def _texts(wanted: Config) -> tuple[dict[str, list[Text]], dict[str, Row]]:
    """Return each source's texts, and for each case a row of an answers.csv, if there is one."""
    texts, rows = {}, {}
    for source in wanted.sources:
        texts[source.name], found = texts_of(source, wanted.cases)
        rows.update(found)
    for name, own in texts.items():
        for case, text in zip(wanted.cases, own, strict=True):
            if re.search(rf"\b{re.escape(name)}\b", text.text, re.IGNORECASE):
                logger.warning("case %s: the text of %s names its source", case.id, name)
    return texts, rows


def _write(
    wanted: Config, folder: Path, by_source: Mapping[str, list[Text]], rows: Mapping[str, Row]
) -> Created:
    seed = secrets.randbits(32) if wanted.seed is None else wanted.seed
    new_id = _ids()
    cases, known = [], {}
    for number, case in enumerate(wanted.cases):
        copied = _copied(case, folder, new_id())
        study = _read(case, paths_of(copied, folder))
        texts = {name: texts[number] for name, texts in by_source.items()}
        cases.append(copied)
        known[copied.id] = _known(case, study, texts, rows.get(case.id, {}), wanted.reference)
    random.Random(seed).shuffle(cases)  # hide the order of study.yaml
    tokens = {reader: secrets.token_urlsafe(24) for reader in wanted.readers}
    orders = showings(len(cases), len(by_source), len(tokens), wanted.repeats, seed)
    candidates: dict[str, str] = {}
    repeats: list[str] = []
    readers = []
    for (reader, token), order in zip(tokens.items(), orders, strict=True):
        items = tuple(_item(one, cases, known, candidates, repeats, new_id) for one in order)
        readers.append(Reader(reader, token_digest(token), items))
    plan = Plan(
        wanted.title, wanted.instructions, wanted.criteria, wanted.pairwise, wanted.comment,
        tuple(cases), tuple(readers), folder, wanted.address,
    )  # fmt: skip
    kinds = {source.name: source.kind for source in wanted.sources}
    key = Key(new_id(), seed, kinds, wanted.reference, known, candidates, tuple(repeats))
    key.save(folder)
    addresses = {reader: f"{wanted.address}/#{token}" for reader, token in tokens.items()}
    _write_tokens(folder / TOKENS, addresses)
    plan.save()  # last: it marks a complete study
    return Created(plan, key, addresses)


def _ids() -> Callable[[], str]:
    """Return a generator of unique random ids that do not depend on the seed."""
    used: set[str] = set()

    def new_id() -> str:
        while (name := secrets.token_hex(8)) in used:
            continue
        used.add(name)
        return name

    return new_id


def _item(
    showing: Showing,
    cases: Sequence[Case],
    known: Mapping[str, KnownCase],
    candidates: dict[str, str],
    repeats: list[str],
    new_id: Callable[[], str],
) -> Item:
    case = cases[showing.case]
    texts = known[case.id].texts
    names = list(texts)
    shown = []
    for source in showing.sources:
        candidate = Candidate(new_id(), texts[names[source]].text)
        candidates[candidate.id] = names[source]
        shown.append(candidate)
    item = Item(new_id(), case.id, tuple(shown))
    if showing.repeat:
        repeats.append(item.id)
    return item


def _known(
    case: CaseConfig, study: Study, texts: dict[str, Text], row: Row, reference_source: str | None
) -> KnownCase:
    reference = case.reference or None
    if reference is None and reference_source is not None:
        reference = texts[reference_source].text
    reference = reference or row.get("truth") or None
    modality = case.modality or _stated(row.get("modality")) or study.images[0].modality
    code = modality_of(modality)
    organ_system = case.organ_system or _stated(row.get("organ_system"))
    if organ_system not in ORGAN_SYSTEMS:
        hints = [
            case.question or "",
            reference or "",
            *(image.body_part or "" for image in study.images),
        ]
        organ_system = organ_system_of(" ".join(hints))
    return KnownCase(
        case.id,
        case.server_images,
        study.digest,
        MODALITIES[code] if code else modality,
        organ_system,
        reference,
        texts,
    )


def _stated(value: str | None) -> str | None:
    return None if value in (None, "", _NOT_STATED) else value


# Files -----------------------------------------------------------------------------------------


def _copied(case: CaseConfig, folder: Path, name: str) -> Case:
    """Copy a case's files under neutral names."""
    images = []
    for number, image in enumerate(case.images, 1):
        target = folder / CASES / name / f"{number}{'' if image.is_dir() else _suffix(image)}"
        if image.is_dir():
            make_directory(target)
            files = sorted(file for file in image.rglob("*") if file.is_file())
            for count, file in enumerate(files, 1):
                shutil.copyfile(file, target / f"{count:05d}{_suffix(file)}")
        else:
            make_directory(target.parent)
            shutil.copyfile(image, target)
        images.append(target.relative_to(folder).as_posix())
    return Case(
        name, tuple(images), case.task, case.question, case.context, case.series, case.volume
    )


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def _read(case: CaseConfig, paths: list[Path]) -> Study:
    """Load a case as the server will, to detect unreadable images now."""
    from radfound.reading import read_study

    try:
        return read_study(paths, series=case.series, volume=case.volume)
    except (StudyError, RequestError) as error:
        raise ReaderStudyError(f"case {case.id}: its images cannot be read: {error}") from error


def _write_tokens(path: Path, addresses: Mapping[str, str]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(f"{reader}\t{address}\n" for reader, address in addresses.items())
