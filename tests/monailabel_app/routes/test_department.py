"""The list of studies with their state, and the department's templates."""

from pathlib import Path

import pytest

from monailabel_app.lib.routes.department.templates import MAX_BYTES, read_templates

from ..conftest import CT, PICTURE, VOLUME, fill_with_studies, running_server


@pytest.fixture(scope="module")
def department(tmp_path_factory):
    folder = tmp_path_factory.mktemp("department")
    studies = folder / "studies"
    templates = studies / ".radfound" / "templates"
    templates.mkdir(parents=True)
    fill_with_studies(studies)
    (templates / "Chest.txt").write_text("Findings: {Is there an effusion?}", encoding="utf-8")
    with running_server(studies, folder / "server.log") as server:
        yield server


def listed(server, field):
    rows = server.get("/radfound/studies").json()["studies"]
    return {row["id"]: row[field] for row in rows}


def states(server):
    return listed(server, "state")


def test_a_study_is_new_then_asked_about_then_read(department):
    assert set(states(department).values()) == {"new"}
    assert set(listed(department, "why").values()) == {None}  # the model has seen none

    answer = department.ask(VOLUME, "What is shown?").json()
    assert states(department)[VOLUME] == "asked"
    assert next(iter(states(department))) == VOLUME  # a reader may want to finish it

    correction = {
        "schema": "radfound.correction/1", "id": "one", "answer_id": answer["id"],
        "images": [VOLUME], "task": "vqa", "question": "What is shown?",
        "model_text": answer["text"], "verdict": "rejected", "text": "", "author": "a reader",
        "created": "2026-08-01T09:30:00.000Z", "model": answer["model"],
    }  # fmt: skip
    assert department.post("/radfound/corrections", json=correction).ok

    assert states(department)[VOLUME] == "read" and states(department)[CT] == "new"


def test_a_study_says_why_to_read_it_next_until_it_is_read(department):
    department.ask(CT, "Is there free air?")
    department.ask(PICTURE, "What is shown?")
    reasons = listed(department, "why")

    [unsure] = filter(None, reasons.values())
    assert unsure.startswith("The model is less sure here than in most studies: ")
    assert reasons[VOLUME] is None  # read


def test_templates_are_the_text_files_of_their_folder(department):
    assert department.get("/radfound/templates").json() == {
        "templates": [{"name": "Chest", "text": "Findings: {Is there an effusion?}"}]
    }


def test_a_file_that_is_no_template_is_left_out(tmp_path: Path):
    (tmp_path / "b.txt").write_text("B", encoding="utf-8")
    (tmp_path / "a.txt").write_text("Ä", encoding="utf-8")
    (tmp_path / "large.txt").write_text("x" * (MAX_BYTES + 1), encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"\xc4")
    (tmp_path / "notes.md").write_text("no template", encoding="utf-8")

    assert read_templates(tmp_path) == [("a", "Ä"), ("b", "B")]
    assert read_templates(tmp_path / "nowhere") == []
