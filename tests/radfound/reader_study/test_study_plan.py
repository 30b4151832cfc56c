import json
import re

import pytest

from radfound.exceptions import NotFoundError, ReaderStudyError
from radfound.reader_study.design.criteria import DEFAULT_CRITERIA
from radfound.reader_study.design.plan import Plan

from .department import make_study


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path, cases=2)


def test_a_plan_is_read_as_it_was_saved(study):
    assert Plan.load(study.plan.folder) == study.plan


def test_a_token_opens_its_own_readers_pages_only(study):
    for reader, address in study.addresses.items():
        found = study.plan.reader_of_token(address.partition("#")[2])
        assert found is not None and found.id == reader
    assert study.plan.reader_of_token("") is None
    assert study.plan.reader_of_token("wrong \ud800") is None


def test_what_is_not_in_the_plan_is_not_found(study):
    reader, other = study.plan.readers[:2]
    for ask in (
        lambda: study.plan.reader("nobody"),
        lambda: study.plan.case("none"),
        lambda: study.plan.criterion("beauty"),
        lambda: reader.item(other.items[0].id),
        lambda: reader.items[0].candidate(reader.items[1].candidates[0].id),
    ):
        with pytest.raises(NotFoundError):
            ask()


def test_each_point_of_the_default_criteria_is_described_and_five_is_good():
    assert [each.key for each in DEFAULT_CRITERIA] == [
        "correctness", "completeness", "relevance", "safety", "readability",
    ]  # fmt: skip
    for criterion in DEFAULT_CRITERIA:
        assert len(criterion.anchors) == len(set(criterion.anchors)) == 5
        assert criterion.best == 5


def changed(plan: dict, path: str, value: object) -> dict:
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    here = plan
    for step in way:
        here = here[step]
    here[last] = value
    return plan


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", "radfound.reader_study/9", "this version reads"),
        ("titel", "x", "unknown field 'titel'; did you mean 'title'"),
        ("pairwise", 1, "pairwise: found a number; expected true or false"),
        ("criteria", [], "criteria: found an empty list"),
        ("criteria.0.anchors", ["bad", "good"], "criteria 1: anchors need a text for each"),
        ("criteria.1.key", "correctness", "'correctness' is there twice"),
        ("criteria.0.better", "left", "expected high or low"),
        ("cases.0.task", "poem", "task: found 'poem'"),
        ("cases.0.images.0", "cases/../../secret.png", "expected a file in cases/"),
        ("cases.0.volume", "two", "volume: found text"),
        ("readers.0.token_sha256", "abc", "no SHA-256"),
        ("readers.0.items.0.case", "gone", "of an unknown case gone"),
        ("readers.0.items.0.candidates.0", "text", "candidates 1: found text; expected an object"),
        ("readers.0.id", "a/b", "expected 1 to 64 letters"),
    ],
)
def test_a_damaged_plan_is_refused_with_the_place(study, path, value, message):
    file = study.plan.folder / "plan.json"
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    with pytest.raises(ReaderStudyError, match=re.escape(message)):
        Plan.load(study.plan.folder)


def test_a_folder_without_a_plan_and_a_broken_plan_are_named(tmp_path):
    with pytest.raises(ReaderStudyError, match="reader-study create"):
        Plan.load(tmp_path)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(ReaderStudyError, match="cannot be read"):
        Plan.load(tmp_path)
