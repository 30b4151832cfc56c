"""Trace an answer to its adapter and training corrections; verify and export the log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radfound import __version__
from radfound.correction import Correction
from radfound.exceptions import AdapterError, NotFoundError, RequestError, StorageError
from radfound.question import ModelVersion
from radfound.records.adapters import AdapterStore
from radfound.records.answers import AnswerJournal, RecordedAnswer
from radfound.records.corrections import CorrectionLog, rows_digests
from radfound.records.durable import make_directory, replace_text
from radfound.records.hash_chain import Verification
from radfound.study.region import region_to_json
from radfound.wire import correction_to_json

DATASET_ROWS = "data/corrections.jsonl"


@dataclass(frozen=True)
class Lesson:
    """The training data of an adapter.

    Parameters
    ----------
    adapter : str
    manifest : dict or None
        As published; None if the adapter is damaged or no longer in the store.
    snapshot_rows : int or None
        Number of rows in the log's snapshot, from the first; None if the log no longer begins
        with these rows.
    corrections : tuple of Correction
        The corrections that the adapter was trained on.
    """

    adapter: str
    manifest: dict[str, Any] | None
    snapshot_rows: int | None
    corrections: tuple[Correction, ...]


@dataclass(frozen=True)
class Trace:
    """The origin of one answer.

    Parameters
    ----------
    answer_id : str
    answer : RecordedAnswer or None
        The journal's entry; None if only a correction names the answer.
    model : ModelVersion or None
        The weights that gave the answer.
    lesson : Lesson or None
        None for the base model.
    judged : tuple of Correction
        The readers' corrections of the answer.
    """

    answer_id: str
    answer: RecordedAnswer | None
    model: ModelVersion | None
    lesson: Lesson | None
    judged: tuple[Correction, ...]


def trace(answer_id: str, journal: AnswerJournal, log: CorrectionLog, store: AdapterStore) -> Trace:
    """Trace an answer to its weights and to the corrections that they were trained on.

    Raises
    ------
    NotFoundError
        If neither the journal nor a correction names the answer.
    """
    rows = log.rows(withdrawn=True)  # the weights were trained on what held then
    judged = tuple(row for row in rows if row.answer_id == answer_id)
    try:
        answer = journal.get(answer_id)
    except NotFoundError:
        if not judged:
            raise
        answer = None
    models = [answer.model] if answer else [row.model for row in judged if row.model]
    model = models[0] if models else None
    lesson = _lesson(model.adapter, rows, store) if model and model.adapter else None
    return Trace(answer_id, answer, model, lesson, judged)


def _lesson(adapter: str, rows: Sequence[Correction], store: AdapterStore) -> Lesson:
    try:
        manifest = store.manifest(adapter)
    except (AdapterError, NotFoundError):
        return Lesson(adapter, None, None, ())
    digests = rows_digests(rows)
    snapshot = manifest.get("snapshot")
    count = digests.index(snapshot) if snapshot in digests else None
    learnt = set(manifest.get("corrections", ()))
    return Lesson(adapter, manifest, count, tuple(row for row in rows if row.id in learnt))


def trace_to_json(found: Trace) -> dict[str, Any]:
    """Return a trace as JSON types."""
    answer, lesson = found.answer, found.lesson
    return {
        "answer_id": found.answer_id,
        "created": answer.created if answer else None,
        "images": list(answer.images) if answer else None,
        "task": answer.task if answer else None,
        "question": answer.question if answer else None,
        "region": region_to_json(answer.region) if answer else None,
        "model": vars(found.model) if found.model else None,
        "adapter": lesson.manifest if lesson else None,
        "snapshot_rows": lesson.snapshot_rows if lesson else None,
        "learnt_from": [correction_to_json(row) for row in lesson.corrections] if lesson else [],
        "judged": [correction_to_json(row) for row in found.judged],
    }


def trace_text(found: Trace) -> str:
    """Return a trace as readable text."""
    lines = [f"answer {found.answer_id}"]
    if found.answer:
        answer = found.answer
        where = " (a region of it)" if answer.region else ""
        lines.append(f"  {answer.created}  {', '.join(answer.images)}{where}: {_asked(answer)}")
    else:
        lines.append("  not in the journal of answers; the lines below come from its corrections")
    if found.model:
        lines.append(f"model {found.model.name}, base weights {found.model.revision}")
    lines += (
        _lesson_lines(found.lesson) if found.lesson else ["adapter none: the base model answered"]
    )
    lines.append(
        f"corrections of this answer: {len(found.judged)}"
        if found.judged
        else "no reader has corrected it"
    )
    lines += [_row_text(row) for row in found.judged]
    return "\n".join(lines)


def _lesson_lines(lesson: Lesson) -> list[str]:
    manifest = lesson.manifest
    if manifest is None:
        return [
            f"adapter {lesson.adapter}, no longer in the store or damaged: nothing more is known"
        ]
    snapshot = str(manifest.get("snapshot"))[:12]
    rows = (
        "but the log does not begin with it: rows were changed or removed, or it is another log"
        if lesson.snapshot_rows is None
        else f"the first {lesson.snapshot_rows} rows of the log, unchanged since"
    )
    named = len(manifest.get("corrections", ()))
    return [
        f"adapter {lesson.adapter}, published {manifest.get('created')}",
        f"snapshot {snapshot}, {rows}",
        f"trained on {named} corrections, {len(lesson.corrections)} of them in this log",
        *(_row_text(row) for row in lesson.corrections),
    ]


def _row_text(row: Correction) -> str:
    return (
        f"  {row.id}  {row.created}  {row.verdict} by {row.author}  "
        f"{', '.join(row.images)}: {_asked(row)}"
    )


def _asked(row: RecordedAnswer | Correction) -> str:
    return row.question or row.task


def verify(log: CorrectionLog, noted: str | None = None) -> Verification:
    """Verify the log's hash chain and raise on a fault; see `CorrectionLog.verify`.

    Raises
    ------
    StorageError
        If a row was changed, removed or moved.
    """
    found = log.verify(noted)
    if not found.is_whole:
        raise StorageError(
            f"{log.path.name}: differs from what was recorded: {'; '.join(found.faults)}; "
            "restore it from a backup"
        )
    return found


def verification_text(found: Verification) -> str:
    """Return the verification of an intact log as readable text."""
    if found.head is None:
        unlinked = "they predate the hash chain, which begins with the next one"
        return f"{found.rows} corrections" + (f"; {unlinked}" if found.rows else "")
    lines = [f"{found.rows} corrections, none changed, removed or moved"]
    if found.unlinked:
        lines.append(
            f"the hash chain begins at row {found.unlinked + 1}; earlier changes to the "
            f"{found.unlinked} rows before it cannot be detected"
        )
    return "\n".join([*lines, f"head {found.head}"])


def export(corrections: Sequence[Correction], target: Path) -> Path:
    """Write corrections as JSON lines, or as a folder that Hugging Face `datasets` loads.

    Parameters
    ----------
    corrections : sequence of Correction
    target : Path
        A file if its name ends in .jsonl, otherwise a folder; files of an earlier export are
        replaced.

    Returns
    -------
    Path
        The file with the rows, one `radfound.correction/1` per line.

    Raises
    ------
    RequestError
        If there are no corrections.
    StorageError
        If the target cannot be written.
    """
    if not corrections:
        raise RequestError("corrections: the log has none yet; nothing was written")
    is_folder = target.suffix != ".jsonl"
    rows = target / DATASET_ROWS if is_folder else target
    lines = [json.dumps(correction_to_json(each), ensure_ascii=False) for each in corrections]
    try:
        make_directory(rows.absolute().parent)
        replace_text(rows, "\n".join(lines) + "\n")
        if is_folder:
            replace_text(target / "README.md", _card(corrections))
    except OSError as error:
        raise StorageError(f"{target.name}: cannot be written ({error.strerror})") from error
    return rows


def _card(corrections: Sequence[Correction]) -> str:
    """Return the README of an exported data set."""
    verdicts = {row.verdict for row in corrections}
    counts = ", ".join(
        f"{sum(row.verdict == verdict for row in corrections)} {verdict}"
        for verdict in sorted(verdicts)
    )
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: {DATASET_ROWS}
---
# Readers' corrections of RadFound's answers

{len(corrections)} corrections ({counts}), from {corrections[0].created} to \
{corrections[-1].created}, in the order of recording. Exported by RadFound {__version__}.

    datasets.load_dataset("json", data_files="{DATASET_ROWS}")

Each line is a `radfound.correction/1`: `images` (ids) and `image_hash` name the study, `region`
a part of the study (RAS, mm; null for the whole), `question` the question (null for a caption or
report), `model_text` the model's answer, `text` the reader's text, `verdict` whether the answer was
accepted, edited or rejected, `model` the weights that gave it. The images are not included.

Readers wrote these texts about patients: review them before you share them.
"""
