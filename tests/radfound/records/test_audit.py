import json

import pytest

from radfound.correction import Correction
from radfound.exceptions import NotFoundError, RequestError
from radfound.question import Answer, ModelVersion
from radfound.records.adapters import AdapterStore, store_path
from radfound.records.answers import AnswerJournal, journal_path
from radfound.records.corrections import CorrectionLog, log_path, rows_digest
from radfound.records.hash_chain import Verification
from radfound.records.trace import (
    export,
    trace,
    trace_text,
    trace_to_json,
    verification_text,
    verify,
)
from radfound.study.region import region_from_json
from radfound.wire import correction_from_json

from ..adapter_files import save_adapter

BOX = {"box_mm": [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]}


def correction(correction_id, **changes):
    fields = {
        "images": ("ct01",),
        "task": "vqa",
        "question": "Is there an effusion?",
        "model_text": "No.",
        "verdict": "edited",
        "text": "Größe: 3 mm.",
        "author": "reader 1",
    }
    return Correction(id=correction_id, **{**fields, **changes})


def answer(adapter=None, **changes):
    fields = {
        "task": "vqa",
        "images": ("ct01",),
        "question": "Is there an effusion?",
        "text": "No.",
    }
    model = ModelVersion("radfound-mini", "0123456789ab", adapter)
    return Answer(**{**fields, "model": model, **changes})


@pytest.fixture
def places(tmp_path):
    """A journal, a log of two rows and a store whose adapter learnt the second of them."""
    log = CorrectionLog(log_path(tmp_path))
    for each in (correction("c1", verdict="rejected", text=""), correction("c2", region=BOX)):
        log.append(each)
    snapshot = rows_digest(log.rows())
    trained = save_adapter(tmp_path / "trained")
    store = AdapterStore(store_path(tmp_path))
    store.publish(trained, {"snapshot": snapshot, "corrections": ["c2"]})
    return AnswerJournal(journal_path(tmp_path)), log, store


def test_withdrawn_correction_is_still_found_behind_the_answers_that_learnt_from_it(places):
    journal, log, _ = places
    given = answer("a-0001")
    journal.record(given, None)
    log.withdraw("c2", "reader 2")
    found = trace(given.id, *places)
    assert found.lesson.snapshot_rows == 2
    assert [row.id for row in found.lesson.corrections] == ["c2"]


def test_an_answer_leads_to_its_adapter_its_snapshot_and_what_was_learnt(places):
    journal, log, _ = places
    given = answer("a-0001")
    journal.record(given, region_from_json(BOX))
    log.append(correction("c3", answer_id=given.id))
    found = trace(given.id, *places)
    assert found.model == given.model
    assert found.lesson.manifest["id"] == "a-0001"
    assert found.lesson.snapshot_rows == 2
    assert [row.id for row in found.lesson.corrections] == ["c2"]
    assert [row.id for row in found.judged] == ["c3"]
    said = trace_text(found)
    assert "the first 2 rows of the log, unchanged since" in said
    assert "c2" in said and "c3" in said and "a region of it" in said
    assert json.loads(json.dumps(trace_to_json(found)))["learnt_from"][0]["region"] == BOX


def test_an_answer_of_the_base_model_was_taught_by_nothing(places):
    given = answer()
    places[0].record(given, None)
    found = trace(given.id, *places)
    assert found.lesson is None
    assert "the base model answered" in trace_text(found)


def test_an_answer_that_only_a_correction_names_is_traced_by_it(places):
    _, log, _ = places
    log.append(correction("c3", answer_id="elsewhere", model=ModelVersion("m", "r", "a-0001")))
    found = trace("elsewhere", *places)
    assert found.answer is None
    assert found.lesson.adapter == "a-0001"
    assert trace_to_json(found)["model"]["adapter"] == "a-0001"
    assert "not in the journal" in trace_text(found)


def test_a_snapshot_that_the_log_does_not_begin_with_is_said(places, tmp_path):
    journal, _, store = places
    given = answer("a-0001")
    journal.record(given, None)
    other = CorrectionLog(tmp_path / "other.sqlite")
    other.append(correction("c2", text="Something else."))
    found = trace(given.id, journal, other, store)
    assert found.lesson.snapshot_rows is None
    assert "does not begin with" in trace_text(found)


def test_an_adapter_that_is_gone_is_still_named(places):
    given = answer("a-0009")
    places[0].record(given, None)
    found = trace(given.id, *places)
    assert (found.lesson.adapter, found.lesson.manifest) == ("a-0009", None)
    assert "a-0009, no longer in the store" in trace_text(found)
    assert trace_to_json(found)["model"]["adapter"] == "a-0009"


def test_an_unknown_answer_is_not_found(places):
    with pytest.raises(NotFoundError):
        trace("never-given", *places)


def test_verification_says_the_head_to_note(places):
    _, log, _ = places
    found = verify(log)
    assert verification_text(found).startswith("2 corrections, none changed")
    assert found.head in verification_text(found)


def test_verification_says_where_the_chain_begins():
    assert "begins at row 41" in verification_text(Verification(50, 40, "ab" * 32))
    assert "begins with the next one" in verification_text(Verification(40, 40, None))
    assert verification_text(Verification(0, 0, None)) == "0 corrections"


def test_exported_lines_are_the_corrections(places, tmp_path):
    _, log, _ = places
    rows = export(log.rows(), tmp_path / "out" / "corrections.jsonl")
    lines = rows.read_text(encoding="utf-8").splitlines()
    assert [correction_from_json(json.loads(line)) for line in lines] == log.rows()


def test_exported_folder_has_a_card_that_names_the_rows_and_no_image(places, tmp_path):
    _, log, _ = places
    rows = export(log.rows(), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file()) == [
        "README.md",
        "corrections.jsonl",
    ]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert f"path: {rows.relative_to(tmp_path / 'out')}" in card
    assert "1 edited, 1 rejected" in card
    export(log.rows()[:1], tmp_path / "out")
    assert len(rows.read_text(encoding="utf-8").splitlines()) == 1


def test_nothing_to_export_is_said_and_nothing_is_written(tmp_path):
    with pytest.raises(RequestError, match="none yet"):
        export([], tmp_path / "out")
    assert not (tmp_path / "out").exists()
