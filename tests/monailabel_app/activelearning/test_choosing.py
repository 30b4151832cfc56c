"""What to read next, without a server: the datastore is a folder, the model is radfound-tiny."""

import nibabel
import numpy as np
import pytest

from monailabel_app.lib.activelearning import strategies
from monailabel_app.lib.activelearning.leases import Leases
from monailabel_app.lib.answering.models import ServedModels
from monailabel_app.lib.answering.service import RadFoundService
from monailabel_app.lib.scoring import RadFoundScoring
from monailabel_app.lib.studies.datastore import StudyDatastore
from radfound.correction import Correction
from radfound.engine.models.settings import one_model
from radfound.exceptions import RequestError, StudyUnreadableError
from radfound.question import Answer, ModelVersion
from radfound.records.answers import AnswerJournal, journal_path
from radfound.records.corrections import CorrectionLog, log_path
from radfound.records.scores import ScoreBook, scores_path

BASE = ModelVersion("radfound-tiny", "revision")


def study(seed):
    voxels = np.random.default_rng(seed).integers(0, 200, (12, 12, 6)).astype(np.int16)
    return nibabel.Nifti1Image(voxels, np.diag([2.0, 2, 3, 1]))


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(("a", "b", "c", "d")):
        nibabel.save(study(seed), tmp_path / f"{name}.nii.gz")
    return tmp_path


@pytest.fixture
def service(folder):
    return RadFoundService(
        StudyDatastore(str(folder)),
        CorrectionLog(log_path(folder)),
        ServedModels(one_model("radfound-tiny"), folder),
        AnswerJournal(journal_path(folder)),
        ScoreBook(scores_path(folder)),
    )


@pytest.fixture
def ask(service):
    """Ask for the next study as one reader."""
    made = strategies(service)

    def next_study(strategy, reader="reader 1"):
        return made[strategy]({"client_id": reader}, service.datastore)

    return next_study


def uncertain(service, image, uncertainty):
    service.scores.record_uncertainty(
        Answer("vqa", (image,), "Is there free air?", "No.", BASE, uncertainty=uncertainty)
    )


def corrected(service, image):
    service.log.append(
        Correction(
            images=(image,), task="caption", model_text="x", verdict="accepted", author="reader 1"
        )
    )


@pytest.mark.parametrize("strategy", ["random", "first", "uncertainty", "diversity", "hybrid"])
def test_every_strategy_says_why(ask, strategy):
    found = ask(strategy)
    assert found["id"] in "abcd"
    assert "4 unread studies" in found["reason"]


def test_the_study_the_model_is_least_certain_of_comes_first(service, ask):
    for image, uncertainty in (("a", 0.2), ("c", 0.41), ("d", 0.3)):
        uncertain(service, image, uncertainty)
    found = ask("uncertainty")
    assert found["id"] == "c"
    assert (
        found["reason"] == "the model is least sure here, of 3 unread studies: Is there free air?"
    )


def test_what_was_corrected_is_not_offered_again(service, ask):
    for image in "abd":
        corrected(service, image)
    assert {ask(strategy)["id"] for strategy in ("random", "first", "hybrid")} == {"c"}
    corrected(service, "c")
    assert ask("first") is None


def test_two_readers_who_ask_get_different_studies(ask):
    assert ask("first", "reader 1")["id"] == "a"
    assert ask("first", "reader 2")["id"] == "b"
    assert ask("first", "reader 1")["id"] == "a"


def test_a_reader_beyond_the_last_study_shares_one_and_is_told(ask):
    assert {ask("first", f"reader {n}")["id"] for n in range(4)} == set("abcd")
    found = ask("first", "reader 5")
    assert found["id"] == "a"
    assert "another reader" in found["reason"]


def test_an_unreadable_study_is_skipped_with_a_reason(folder, ask):
    (folder / "a.nii.gz").write_bytes(b"not an image")
    found = ask("first")
    assert found["id"] == "b"
    assert "1 before it cannot be read" in found["reason"]
    [skipped] = found["skipped"]
    assert skipped["id"] == "a"
    assert "a.nii.gz" in skipped["reason"]


def test_where_nothing_can_be_read_the_reasons_are_told(folder, ask):
    for name in "abcd":
        (folder / f"{name}.nii.gz").write_bytes(b"not an image")
    with pytest.raises(StudyUnreadableError, match=r"none of 4 unread .*a\.nii\.gz: "):
        ask("first")


# Leases


def test_a_lease_ends_with_its_time_and_with_the_next_choice():
    now = [0.0]
    leases = Leases(10, lambda: now[0])
    assert leases.take("a", "reader 1")
    assert not leases.take("a", "reader 2")
    assert (leases.taken("reader 1"), leases.taken("reader 2")) == (set(), {"a"})
    assert leases.take("b", "reader 1")
    assert leases.take("a", "reader 2")
    now[0] = 10.0
    assert leases.taken("reader 3") == set()
    assert leases.take("a", "reader 3")


# Scoring


def test_scoring_gives_every_study_a_score_and_a_place_once(folder, service, ask):
    (folder / "d.nii.gz").write_bytes(b"not an image")
    corrected(service, "a")
    score = RadFoundScoring(service)
    asked = {"questions": ["Is this study normal?"]}
    found = score({**asked, "limit": 1}, service.datastore)
    assert (found["scored"], found["known"]) == (1, 0)
    found = score(asked, service.datastore)
    assert (found["scored"], found["known"], found["unreadable"]) == (2, 1, 1)
    assert found["skipped"][0]["id"] == "d"
    scores = service.scores.scores()
    assert {image for image in scores if scores[image].uncertainty is not None} == {"b", "c"}
    assert {image for image in scores if scores[image].embedding is not None} == {"a", "b", "c"}
    assert np.linalg.norm(scores["a"].embedding) == pytest.approx(1, abs=1e-5)
    least = "the model is least sure here, of 2 unread studies: Is this study normal?"
    assert ask("uncertainty")["reason"] == least
    assert ask("diversity")["reason"].startswith("most unlike the 1 corrected studies, of 2")


@pytest.mark.parametrize("request_", [{"questions": "one"}, {"questions": [""]}, {"limit": 0}])
def test_scoring_refuses_what_it_cannot_ask(service, request_):
    with pytest.raises(RequestError, match=f"^{next(iter(request_))}: "):
        RadFoundScoring(service)(request_, service.datastore)


def test_an_answer_that_a_reader_got_counts_as_a_score(service):
    inquiry = service.inquire("vqa", {"question": "Any mass?", "max_new_tokens": 3}, image="a")
    answer = service.answer(inquiry)
    assert service.scores.scores()["a"].uncertainty == pytest.approx(answer.uncertainty)
    assert service.journal.get(answer.id).images == ("a",)
