"""Load the texts of each source: RadVLBench's answers, a running server, or people."""

from __future__ import annotations

import csv
import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from radfound.exceptions import ReaderStudyError, RequestError
from radfound.optional import library
from radfound.question import ModelVersion
from radfound.reader_study.design.config import CaseConfig, SourceConfig
from radfound.reader_study.design.key import Text
from radfound.spreadsheet import read_rows

ANSWER_S = 300
"""Timeout for one answer of a server, seconds."""

_BENCH_TASKS = {"vqa": ("vqa", "metadata"), "caption": ("caption",), "report": ("report",)}

Row = Mapping[str, str]


def texts_of(
    source: SourceConfig, cases: Sequence[CaseConfig]
) -> tuple[list[Text], dict[str, Row]]:
    """Return a source's text for each case, and the rows of its answers.csv by case, if it has one.

    Raises
    ------
    ReaderStudyError
        If a text is missing; the message names the case.
    """
    if source.answers is not None:
        rows = _rows(source, cases)
        return [Text(one_layout(rows[case.id][source.column])) for case in cases], rows
    if source.server is not None:
        session = _session()
        return [_query(session, source.server, case) for case in cases], {}
    return [Text(one_layout(case.texts[source.name])) for case in cases], {}


def one_layout(text: str) -> str:
    """Normalize spaces, line breaks and Unicode, so that the layout of a text reveals no source."""
    lines = [" ".join(line.split()) for line in unicodedata.normalize("NFC", text).splitlines()]
    return "\n".join(line for line in lines if line)


def _rows(source: SourceConfig, cases: Sequence[CaseConfig]) -> dict[str, Row]:
    path = source.answers
    assert path is not None
    by_name: dict[tuple[str, str], Row] = {}
    for row in _read(path):
        by_name[row.get("task", ""), row.get("id", "")] = row
    found = {}
    for case in cases:
        wanted = [(task, case.answer_id) for task in _BENCH_TASKS[case.task]]
        rows = [by_name[each] for each in wanted if each in by_name]
        if not rows:
            raise ReaderStudyError(
                f"{path}: no {case.task} answer with the id {case.answer_id!r}; set answer_id of case {case.id} to the id of its "
                "row"
            )
        if rows[0].get(source.column) is None:
            raise ReaderStudyError(
                f"{path}: no column {source.column!r}; expected one of {', '.join(rows[0])}"
            )
        found[case.id] = rows[0]
    return found


def _read(path: Path) -> Sequence[Row]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = read_rows(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReaderStudyError(
            f"{path}: cannot be read ({error}); expected answers.csv of `radfound bench`"
        ) from error
    if not rows or not {"task", "id"} <= set(rows[0]):
        raise ReaderStudyError(
            f"{path}: has no columns task and id; expected answers.csv of `radfound bench`"
        )
    return rows


def _session() -> Any:
    session = library("requests", "reader-study").Session()
    token, file = os.environ.get("RADFOUND_TOKEN"), os.environ.get("RADFOUND_TOKEN_FILE")
    if not token and file:
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"RADFOUND_TOKEN_FILE: cannot be read ({error})") from error
    if token:
        session.headers["Authorization"] = f"Bearer {token}"
    return session


def _query(session: Any, server: str, case: CaseConfig) -> Text:
    params: dict[str, Any] = {"images": list(case.server_images)}
    if case.question is not None:
        params["question"] = case.question
    try:
        response = session.post(
            f"{server}/infer/radfound_{case.task}",
            params={"image": case.server_images[0], "output": "json"},
            data={"params": json.dumps(params)},
            timeout=ANSWER_S,
        )
        reply = response.json()
        if not response.ok:
            detail = reply.get("detail")
            raise ReaderStudyError(
                f"{server}: no answer about case {case.id}: "
                f"{detail['message'] if isinstance(detail, dict) else detail}"
            )
        return Text(one_layout(reply["text"]), reply["id"], ModelVersion(**reply["model"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReaderStudyError(
            f"{server}: no answer about case {case.id} ({error}); is that a running RadFound server?"
        ) from error
