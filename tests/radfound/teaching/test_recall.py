import time
from dataclasses import replace

import pytest

from radfound.correction import Correction
from radfound.question import Question, Turn
from radfound.records.corrections import CorrectionLog
from radfound.study.region import Box
from radfound.teaching.recall import Memory, confirmed_rows, recalled

EFFUSION = Question("vqa", "Is there a pleural effusion on the left?")
LEFT_HALF = Box(((-100.0, 0.0, 0.0), (0.0, 10.0, 10.0)))


def correction(**changes) -> Correction:
    fields = {
        "images": ("ct01",),
        "task": "vqa",
        "question": EFFUSION.text,
        "model_text": "No.",
        "verdict": "edited",
        "text": "Yes, a small one.",
        "author": "Dr A",
        "image_hash": "d1",
        "created": "2026-08-01T09:30:00Z",
    }
    return Correction(**{**fields, **changes})


@pytest.fixture
def log(tmp_path) -> CorrectionLog:
    return CorrectionLog(tmp_path / "corrections.sqlite")


def recall(log, question=EFFUSION, digest="d1", images=("ct01",), confirm=1):
    return recalled(Memory(log).about(digest, images, question), confirm)


def test_corrected_question_is_answered_with_the_readers_text(log):
    log.append(made := correction())
    found = recall(log)
    assert (found.source, found.text) == ("recall", "Yes, a small one.")
    assert found.reason == "corrected by Dr A on 2026-08-01"
    assert (found.corrected_by, found.correction) == ("Dr A", made.id)


def test_the_models_text_is_known_after_another_reader_has_accepted_the_first_ones(log):
    log.append(correction())
    accepted = {"model_text": "Yes, a small one.", "verdict": "accepted", "author": "Dr B"}
    log.append(confirmed := correction(**accepted))
    memory = Memory(log)
    assert memory.about("d1", ("ct01",), EFFUSION)
    assert memory.text_of_model(confirmed.id) == "No."
    log.append(own := correction(**{**accepted, "image_hash": "d2"}))
    assert memory.about("d2", ("ct01",), EFFUSION)
    assert memory.text_of_model(own.id) == "Yes, a small one."


def test_question_in_other_words_is_recalled(log):
    log.append(correction())
    assert recall(log, Question("vqa", "Does the left have a pleural effusion?")).text
    assert recall(log, Question("vqa", "IS THERE A PLEURAL EFFUSION on the left")).text


def test_text_about_the_same_words_comes_before_text_about_other_words(log):
    log.append(correction(text="Yes."))
    log.append(correction(text="No.", question="Is a pleural effusion seen on the left?"))
    assert recall(log).text == "Yes."


@pytest.mark.parametrize(
    "text",
    [
        "Is there a pleural effusion on the right?",
        "Is there no pleural effusion on the left?",
        "Is there a pneumothorax on the left?",
        "Is there a pleural effusion?",
        "Where is the left pleural effusion?",
    ],
)
def test_other_question_about_the_same_study_is_not_recalled(log, text):
    log.append(correction())
    assert recall(log, Question("vqa", text)) is None


def test_same_file_under_another_id_is_recalled_and_another_file_under_the_same_id_is_not(log):
    log.append(correction())
    assert recall(log, digest="d1", images=("copy",)) is not None
    assert recall(log, digest="d2", images=("ct01",)) is None
    assert recall(log, digest=None, images=("ct01",)) is None


def test_correction_without_a_hash_is_found_by_its_images_in_their_order(log):
    log.append(correction(image_hash=None, images=("cc", "mlo")))
    assert recall(log, digest="d9", images=("cc", "mlo")) is not None
    assert recall(log, digest="d9", images=("mlo", "cc")) is None
    assert recall(log, digest="d9", images=("cc",)) is None


def test_region_must_be_the_same(log):
    log.append(correction(region=LEFT_HALF))
    assert recall(log) is None
    assert recall(log, replace(EFFUSION, region=LEFT_HALF)) is not None


def test_caption_is_recalled_as_a_caption_only(log):
    log.append(correction(task="caption", question=None, text="Axial CT of the chest."))
    assert recall(log, Question("caption")).text == "Axial CT of the chest."
    assert recall(log, Question("report")) is None


def test_follow_up_that_points_back_is_not_recalled(log):
    log.append(correction(question="Is it large?"))
    history = (Turn("Is there a mass?", "Yes"),)
    assert recall(log, Question("vqa", "Is it large?", history)) is None
    assert recall(log, Question("vqa", "Is it large?")) is None


def test_newest_text_wins_and_the_other_readers_text_is_shown_as_a_contradiction(log):
    log.append(correction(text="Yes."))
    log.append(correction(text="Yes, large.", author="Dr A"))
    log.append(correction(text="No.", author="Dr B"))
    found = recall(log)
    assert found.text == "No."
    assert [(each.author, each.text) for each in found.contradictions] == [("Dr A", "Yes, large.")]
    assert found.reason.endswith("Dr A said otherwise")


def test_readers_who_agree_do_not_contradict_each_other(log):
    log.append(correction(text="Yes."))
    log.append(correction(text="yes", author="Dr B"))
    assert recall(log).contradictions == ()


def test_accepted_answer_is_recalled_as_confirmed(log):
    log.append(correction(verdict="accepted", text=""))
    found = recall(log)
    assert found.text == "No." and found.reason.startswith("confirmed by Dr A")


def test_rejection_without_a_text_is_told_and_not_recalled(log):
    log.append(correction(verdict="rejected", text=""))
    found = recall(log)
    assert (found.source, found.text, found.rejected_by) == ("model", None, ("Dr A",))


def test_later_rejection_forgets_the_readers_earlier_text(log):
    log.append(correction())
    log.append(correction(verdict="rejected", text=""))
    assert recall(log).text is None


def test_withdrawn_correction_is_forgotten_at_once_and_the_older_one_is_back(log):
    memory = Memory(log)
    log.append(correction(text="Yes."))
    log.append(newer := correction(text="No."))
    assert recalled(memory.about("d1", ("ct01",), EFFUSION)).text == "No."
    CorrectionLog(log.path).withdraw(newer.id, "Dr A")  # by another process
    assert recalled(memory.about("d1", ("ct01",), EFFUSION)).text == "Yes."


def test_text_is_marked_until_a_second_reader_agrees(log):
    log.append(correction(text="Yes."))
    found = recall(log, confirm=2)
    assert found.text == "Yes." and not found.confirmed
    assert confirmed_rows(log.rows(), 2) == []
    log.append(correction(text="yes", author="Dr B"))
    assert recall(log, confirm=2).confirmed
    assert [row.author for row in confirmed_rows(log.rows(), 2)] == ["Dr B"]


def test_one_reader_cannot_confirm_alone(log):
    log.append(correction(text="Yes."))
    log.append(correction(text="Yes."))
    assert not recall(log, confirm=2).confirmed


def test_restored_log_replaces_what_was_remembered(log, tmp_path):
    memory = Memory(log)
    log.append(correction())
    log.append(correction(image_hash="d2"))
    assert len(memory.rows()) == 2
    log.path.unlink()
    for suffix in ("-wal", "-shm"):
        log.path.with_name(log.path.name + suffix).unlink(missing_ok=True)
    log.append(correction(text="Other."))
    assert [row.text for row in memory.rows()] == ["Other."]


def test_recall_from_twenty_thousand_corrections_takes_less_than_a_tenth_of_a_second(log):
    log.append(correction())
    fill(log, 20_000)
    memory = Memory(log)
    memory.rows()
    for digest in ("d1", "h07777"):
        began = time.perf_counter()
        found = recalled(memory.about(digest, ("ct01",), EFFUSION))
        assert time.perf_counter() - began < 0.1
        assert found.text == "Yes, a small one."


def fill(log: CorrectionLog, count: int) -> None:
    """Append many corrections in one transaction, which `append` would sync one by one."""
    from radfound.records.corrections import _INSERT, _head, _to_row
    from radfound.records.hash_chain import link

    with log._file.connection(create=True) as connection:
        connection.execute("BEGIN IMMEDIATE")
        head = _head(connection)
        for number in range(count):
            row = _to_row(correction(image_hash=f"h{number:05d}", images=(f"i{number}",)))
            head = link(head, row)
            connection.execute(_INSERT, (*row.values(), head))
        connection.execute("COMMIT")
