"""An unfinished run goes on where it was ended, and two runs stand side by side."""

import json

import pytest

from radfound.benchmark.kept_answers import FILE, KeptAnswers
from radfound.benchmark.output import side_by_side
from radfound.engine.generated import Generated
from radfound.engine.protocol import Abilities, Description
from radfound.exceptions import RequestError
from radfound.question import Question

MODEL = Description("m", "r1", 4096, 8, None, "plain", Abilities("none"))
ANSWER = Generated("No.", (-0.25, -0.5), None, True)
KEY = KeptAnswers.key("digest", Question(text="Any effusion?"), 48)


def test_an_answer_is_found_again_after_a_kill(tmp_path):
    KeptAnswers(tmp_path, MODEL).add(KEY, ANSWER)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"key": "cut o')
    again = KeptAnswers(tmp_path, MODEL)
    assert again.get(KEY) == ANSWER
    again.add("another", ANSWER)
    assert len(KeptAnswers(tmp_path, MODEL)) == 2


@pytest.mark.parametrize(
    "other", [("m", "r2", "plain"), ("n", "r1", "plain"), ("m", "r1", "medgemma_ct")]
)
def test_answers_of_another_model_are_not_mixed_in(tmp_path, other):
    KeptAnswers(tmp_path, MODEL).add(KEY, ANSWER)
    name, revision, recipe = other
    model = Description(name, revision, 4096, 8, None, recipe, Abilities("none"))
    with pytest.raises(RequestError, match="unfinished run of m"):
        KeptAnswers(tmp_path, model)


def test_a_key_depends_on_study_question_history_region_and_limit():
    asked = Question(text="Any effusion?")
    keys = {
        KEY,
        KeptAnswers.key("other", asked, 48),
        KeptAnswers.key("digest", Question(text="Any mass?"), 48),
        KeptAnswers.key("digest", Question(task="caption"), 48),
        KeptAnswers.key("digest", asked, 8),
        KeptAnswers.key(b"\x01", asked, 48),
    }
    assert len(keys) == 6


def test_a_finished_run_leaves_no_file(tmp_path):
    kept = KeptAnswers(tmp_path, MODEL)
    kept.finish()
    assert list(tmp_path.iterdir()) == []


def results(name, value, limit=None):
    interval = {"value": value, "low": value - 0.1, "high": value + 0.1}
    row = {"row": "closed", "score": "right", "n": 20, "percent": True, "lower_is_better": False}
    row |= {"model": interval, "over_blank": interval, "over_other": {**interval, "value": None}}
    return {
        "model": {"name": name}, "data": "kit", "limit": limit, "seed": 0, "tasks": {"vqa": {"rows": [row]}},
    }  # fmt: skip


def write(folder, *arguments):
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(results(*arguments)))
    return folder


def test_several_models_stand_side_by_side(tmp_path):
    folders = [write(tmp_path / "a", "mini", 0.6), write(tmp_path / "b", "large", 0.8)]
    table = side_by_side(folders)
    assert "| question | score | mini | large |" in table
    assert "| closed | right | 60.0; +60.0 (+50.0 to +70.0); - | 80.0; " in table


def test_runs_of_different_limits_are_not_compared(tmp_path):
    folders = [write(tmp_path / "a", "mini", 0.6), write(tmp_path / "b", "large", 0.8, 40)]
    with pytest.raises(RequestError, match="different data, --limit or --seed"):
        side_by_side(folders)
