import json
from dataclasses import replace

import numpy as np
import pytest

from radfound.correction import Correction
from radfound.exceptions import CheckpointError, NotFoundError
from radfound.question import Question
from radfound.records.corrections import CorrectionLog
from radfound.study.study import Study, StudyImage
from radfound.teaching.examples import ExamplesGain, nearest_corrections, worked_examples
from radfound.teaching.recall import Memory

QUESTION = Question("vqa", "Is this a PA or an AP film?")
GAIN = ExamplesGain("abc", 2, 40, 30, 0.5, 0.7, 0.05, 0.35)


def film(number: int) -> Study:
    pixels = np.full((1, 4, 4), number, np.uint8)
    return Study((StudyImage(pixels, np.eye(4), calibrated=False),))


def correction(number: int, text: str = "PA", **changes) -> Correction:
    fields = {
        "images": (f"film{number}",),
        "task": "vqa",
        "question": QUESTION.text,
        "model_text": "AP or so",
        "verdict": "edited",
        "text": text,
        "author": "Dr A",
        "image_hash": film(number).digest,
        "created": f"2026-08-{number:02d}T09:30:00Z",
        "id": f"c{number}",
    }
    return Correction(**{**fields, **changes})


@pytest.fixture
def log(tmp_path) -> CorrectionLog:
    found = CorrectionLog(tmp_path / "corrections.sqlite")
    for number in (1, 2, 3):
        found.append(correction(number))
    return found


def read(images: tuple[str, ...]) -> Study:
    return film(int(images[0].removeprefix("film")))


def shown(log, study=None, features=None, reader=read, **options):
    rows = Memory(log).asked(QUESTION)
    found = worked_examples(rows, study or film(9), reader, features, **options)
    return [each.correction for each in found]


def test_the_newest_two_are_shown_where_nothing_is_known_of_the_studies(log):
    assert shown(log) == ["c3", "c2"]


def test_the_nearest_studies_come_first(log):
    vectors = {film(n).digest: np.array([1.0, n]) for n in (1, 3)} | {film(9).digest: np.ones(2)}
    assert shown(log, features=vectors.get) == ["c1", "c3"]


def test_an_example_names_its_reader_and_day(log):
    [example] = worked_examples(Memory(log).asked(QUESTION), film(9), read, count=1)
    assert (example.answer, example.source) == ("PA", "Dr A, 2026-08-03")


def test_a_withdrawn_correction_is_never_shown(log):
    log.withdraw("c3", "Dr A")
    assert shown(log) == ["c2", "c1"]


def test_a_study_is_no_example_of_itself(log):
    assert shown(log, film(3)) == ["c2", "c1"]


def test_a_study_whose_file_is_gone_or_another_one_is_left_out(log):
    def reader(images):
        if images == ("film3",):
            raise NotFoundError("gone")
        return film(8) if images == ("film2",) else read(images)

    assert shown(log, reader=reader) == ["c1"]


def test_what_readers_do_not_agree_on_is_not_shown(log):
    assert shown(log, confirm=2) == []
    log.append(replace(correction(1), author="Dr B", id="again"))
    assert shown(log, confirm=2) == ["again"]


def test_a_long_answer_is_no_example():
    rows = [correction(1, "a " * 400), correction(2)]
    assert [row.id for row in nearest_corrections(rows, None)] == ["c2"]


def test_what_was_measured_belongs_to_one_revision(tmp_path):
    assert ExamplesGain.read(tmp_path, "abc") is None
    GAIN.write(tmp_path)
    assert ExamplesGain.read(tmp_path, "abc") == GAIN
    assert ExamplesGain.read(tmp_path, "other") is None
    assert GAIN.wins and not replace(GAIN, low=-0.01).wins


def test_a_damaged_measurement_says_what_to_do(tmp_path):
    (tmp_path / "examples.json").write_text(json.dumps({"schema": "radfound.examples/1"}))
    with pytest.raises(CheckpointError, match="measure again with"):
        ExamplesGain.read(tmp_path, "abc")
