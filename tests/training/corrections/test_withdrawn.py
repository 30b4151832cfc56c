import pytest

from radfound.correction import Correction
from radfound.exceptions import TrainingError
from radfound.records.corrections import CorrectionLog, rows_digests
from training.corrections.finetune import snapshot_of


def correction(image):
    return Correction(
        images=(image,),
        task="vqa",
        question="Is there a mass?",
        model_text="No",
        verdict="edited",
        text="Yes",
        author="Dr A",
    )


def test_training_leaves_withdrawn_corrections_out_and_names_a_beginning_of_the_log(tmp_path):
    log = CorrectionLog(tmp_path / "corrections.sqlite")
    first, second = correction("ct01"), correction("ct02")
    log.append(first)
    log.append(second)
    log.withdraw(first.id, "Dr A")
    digest, wanted = snapshot_of(log, 10)
    assert wanted == [second]
    log.append(correction("ct03"))
    assert digest in rows_digests(log.rows(withdrawn=True))


def test_training_needs_a_correction_that_holds(tmp_path):
    log = CorrectionLog(tmp_path / "corrections.sqlite")
    log.append(made := correction("ct01"))
    log.withdraw(made.id, "Dr A")
    with pytest.raises(TrainingError, match="corrections: none"):
        snapshot_of(log, 10)
