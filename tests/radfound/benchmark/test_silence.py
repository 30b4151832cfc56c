"""What the engine says and keeps silent about, with a model whose worth is known."""

import json

import numpy as np
import pytest
from PIL import Image

from radfound.benchmark.looking import silence
from radfound.benchmark.tasks import Source, load_task
from radfound.engine.competence import Competence, Lead
from radfound.engine.engine import Engine
from radfound.engine.protocol import Abilities, Description
from radfound.engine.stream import Stream, Token


class Model:
    """Says "Yes" about bright pictures, or always; and "axial" to open questions."""

    def __init__(self, looks):
        self.looks = looks

    def describe(self):
        return Description("m", "r1", None, 8, 10, "", Abilities("all"))

    def stream(self, study, question, *, adapter, limit):
        is_bright = study.images[0].voxels.mean() > 40 or not self.looks
        text = (
            "axial" if question.text.startswith(("In", "Which")) else "Yes" if is_bright else "No"
        )
        stream = Stream()
        stream.put(Token(text, -0.1, 0.3, last=True))
        stream.end()
        return stream


SILENT = Competence("r1", {"finding": Lead(0, -0.1, "…")})


@pytest.fixture
def films(tmp_path):
    folder = tmp_path / "findings"
    folder.mkdir()
    rows = []
    for number in range(6):
        name = f"{number}.png"
        grey = np.full((16, 16), 20 if number % 2 else 120, np.uint8)
        Image.fromarray(grey).save(folder / name)
        rows.append(
            {
                "file": name,
                "set": "covid_chestxray" if number else "nih_cxr",
                "modality": "DX",
                "split": "test" if number < 5 else "train",
                "patient": str(number // 2),
                "labels": ["pneumonia"],
            }
        )
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "findings.jsonl").write_text(lines)
    return tmp_path


def cells(lines):
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("| I")]


def ignore(count):
    pass


def test_films_are_held_out_and_of_one_set_a_patient_first(films):
    assert silence.held_out_films(films) == ["1.png", "2.png", "4.png", "3.png"]


def test_answers_that_are_the_same_about_every_film_are_counted(films):
    blind = cells(silence.film_table(Engine(Model(looks=False)), films, ignore))
    assert [row[1:] for row in blind] == [["0", "4", "0", "4"]] * 6
    looking = cells(silence.film_table(Engine(Model(looks=True)), films, ignore))
    assert [row[1:] for row in looking] == [["0", "4", "0", "0"]] * 6


def test_a_silent_model_says_nothing(films):
    engine = Engine(Model(looks=False), competence=SILENT)
    assert [row[1:] for row in cells(silence.film_table(engine, films, ignore))] == [
        ["0", "0", "4", "0"]
    ] * 6


def test_the_curve_has_the_surest_first_and_what_the_engine_says(own_data):
    task = load_task("vqa", Source(str(own_data)))
    lines = silence.closed_curve(Engine(Model(looks=False)), task, ignore)
    table = "\n".join(lines)
    assert "Closed questions, VQA-RAD, test** (n = 16)" in table
    assert "| language model alone | 75.0 (" in table and "| words alone | 75.0 (" in table
    assert "As the engine answers: 100.0% said (0 field, 16 model, 0 silent)" in table
    quiet = silence.closed_curve(Engine(Model(looks=False), competence=SILENT), task, ignore)
    assert quiet[-1] == "As the engine answers: 0.0% said (0 field, 0 model, 16 silent)."


def test_fields_are_counted_by_name(own_data):
    task = load_task("metadata", Source(str(own_data)))
    lines = silence.field_table(Engine(Model(looks=False)), task, ignore)
    assert any(line.startswith("| plane | 16 | 0.0% | 50.0 (") for line in lines)
