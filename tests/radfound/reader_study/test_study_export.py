import json

import pytest

from radfound.cli import main
from radfound.reader_study.analysis.export import export_corrections
from radfound.reader_study.design.create import create
from radfound.reader_study.rating.ratings import AGREEMENT, NO, YES, Rating, RatingStore
from radfound.records.corrections import CorrectionLog, log_path

from .department import (
    HUMAN,
    MODEL,
    OTHER,
    candidate_of,
    comment,
    configuration,
    make_study,
    rate_item,
    write_yaml,
)

NOTHING = {"accepted": 0, "edited": 0, "rejected": 0}


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path)


@pytest.fixture
def studies(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    return folder


def first_item(made, reader: str = "reader-1"):
    return made.plan.reader(reader).items[0]


def rate(made, worth: dict[str, int], reader: str = "reader-1", answer: str = YES) -> None:
    store = RatingStore(made.plan)
    rate_item(store, made.key, reader, first_item(made, reader), worth)
    store.record(Rating(reader=reader, kind=AGREEMENT, value=answer))


def exported(made, studies):
    export_corrections(made.plan.folder, studies)
    return {each.model_text: each for each in CorrectionLog(log_path(studies)).rows()}


def texts(made, reader: str = "reader-1") -> dict[str, str]:
    return {made.key.candidates[each.id]: each.text for each in first_item(made, reader).candidates}


def test_only_readers_who_agreed_are_exported(study, studies):
    rate(study, {HUMAN: 5, MODEL: 5, OTHER: 5}, "reader-1", NO)
    rate(study, {HUMAN: 5, MODEL: 5, OTHER: 5}, "reader-2", YES)
    found = export_corrections(study.plan.folder, studies)
    assert found == {"asked": 3, "readers": 1, **NOTHING, "accepted": 2, "new": 2}
    log = CorrectionLog(log_path(studies))
    assert {each.author for each in log} == {"reader-2"}


def test_good_texts_of_models_are_accepted_and_people_are_not_corrected(study, studies):
    rate(study, {HUMAN: 5, MODEL: 4, OTHER: 3})
    found = exported(study, studies)
    said = texts(study)
    assert found[said[MODEL]].verdict == "accepted"
    assert said[HUMAN] not in found
    item = first_item(study)
    assert found[said[MODEL]].images == study.key.cases[item.case].images
    assert found[said[MODEL]].image_hash == study.key.cases[item.case].digest
    assert (found[said[MODEL]].task, found[said[MODEL]].question) == ("caption", None)


def test_a_good_text_that_is_preferred_says_what_the_model_should_have_said(study, studies):
    rate(study, {HUMAN: 4, MODEL: 3, OTHER: 1})
    found, said = exported(study, studies), texts(study)
    for model in (MODEL, OTHER):
        assert (found[said[model]].verdict, found[said[model]].text) == ("edited", said[HUMAN])


def test_a_bad_text_with_no_better_one_beside_it_is_rejected(study, studies):
    rate(study, {HUMAN: 3, MODEL: 2, OTHER: 3})
    found, said = exported(study, studies), texts(study)
    assert list(found) == [said[MODEL]]  # the other is neither good nor bad
    assert (found[said[MODEL]].verdict, found[said[MODEL]].text) == ("rejected", "")


def test_a_comment_teaches_only_if_it_says_what_should_stand_there(study, studies):
    rate(study, {HUMAN: 3, MODEL: 2, OTHER: 2})
    store, item = RatingStore(study.plan), first_item(study)
    comment(store, "reader-1", item, candidate_of(study.key, item, MODEL), "misses the effusion")
    comment(
        store, "reader-1", item, candidate_of(study.key, item, OTHER), "Instead:  Left effusion. "
    )
    found, said = exported(study, studies), texts(study)
    assert (found[said[MODEL]].verdict, found[said[MODEL]].text) == ("rejected", "")
    assert (found[said[OTHER]].verdict, found[said[OTHER]].text) == ("edited", "Left effusion.")


def test_an_item_that_is_not_complete_and_a_repeat_are_left_out(study, studies):
    store, reader = RatingStore(study.plan), study.plan.readers[0]
    store.record(Rating(reader=reader.id, kind=AGREEMENT, value=YES))
    repeat = next(item for item in reader.items if item.id in study.key.repeats)
    rate_item(store, study.key, reader.id, repeat, {HUMAN: 5, MODEL: 5, OTHER: 5})
    rate_item(store, study.key, reader.id, first_item(study), {HUMAN: 5, MODEL: 5, OTHER: 5})
    row = store.rows()[-1]
    assert export_corrections(study.plan.folder, studies)["accepted"] == 2
    other = reader.items[1]
    store.record(
        Rating(
            reader=row.reader, item=other.id, candidate=other.candidates[0].id, kind="score",
            name="safety", value="1",
        )
    )  # fmt: skip
    assert export_corrections(study.plan.folder, studies)["rejected"] == 0


def test_exporting_twice_records_nothing_twice_and_a_change_of_mind_is_added(study, studies):
    rate(study, {HUMAN: 3, MODEL: 4, OTHER: 4})
    assert export_corrections(study.plan.folder, studies)["new"] == 2
    assert export_corrections(study.plan.folder, studies)["new"] == 0
    rate(study, {HUMAN: 3, MODEL: 2, OTHER: 4})
    assert export_corrections(study.plan.folder, studies)["new"] == 1
    log = CorrectionLog(log_path(studies))
    assert [each.verdict for each in log] == ["accepted", "accepted", "edited"]


def test_training_finds_the_readers_own_text_newest(study, studies):
    item = study.plan.reader("reader-1").items[0]
    rate(study, {HUMAN: 4, MODEL: 3, OTHER: 1})
    for reader in ("reader-2", "reader-3"):
        store = RatingStore(study.plan)
        same = next(each for each in study.plan.reader(reader).items if each.case == item.case)
        rate_item(store, study.key, reader, same, {HUMAN: 3, MODEL: 5, OTHER: 1})
        store.record(Rating(reader=reader, kind=AGREEMENT, value=YES))
    export_corrections(study.plan.folder, studies)
    (newest,) = CorrectionLog(log_path(studies)).latest()
    assert newest.verdict == "edited"


def test_a_criterion_whose_good_end_is_one_counts_as_its_readers_meant_it(tmp_path, studies):
    harm = {
        "key": "harm",
        "name": "Harm",
        "description": "How bad?",
        "anchors": list("abcde"),
        "better": "low",
    }
    config = configuration(tmp_path, criteria=[harm], pairwise=False)
    made = create(write_yaml(tmp_path, config), tmp_path / "study")
    rate(made, {HUMAN: 1, MODEL: 2, OTHER: 5})
    found, said = exported(made, studies), texts(made)
    assert found[said[MODEL]].verdict == "accepted"
    assert (found[said[OTHER]].verdict, found[said[OTHER]].text) == ("edited", said[HUMAN])


def test_the_command_line_counts_what_was_exported(study, studies, capsys):
    rate(study, {HUMAN: 5, MODEL: 4, OTHER: 4})
    command = [
        "reader-study",
        "export-corrections",
        str(study.plan.folder),
        "--studies",
        str(studies),
    ]
    assert main(command) == 0
    assert "1 of 3 readers agreed; 2 accepted, 0 edited, 0 rejected" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["new"] == 0
    assert main([*command[:-1], str(studies / "gone")]) == 2
    assert "is not a folder" in capsys.readouterr().err
