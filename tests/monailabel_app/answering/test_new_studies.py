"""A head answers the first question about a study, whose features nothing has kept yet."""

import hashlib

import nibabel
import numpy as np
import pytest

from monailabel_app.lib.answering.features import StudyFeatures
from monailabel_app.lib.answering.models import ServedModels
from monailabel_app.lib.answering.service import RadFoundService
from monailabel_app.lib.studies.datastore import StudyDatastore
from radfound.correction import Correction
from radfound.engine.models.settings import one_model
from radfound.fields.values import Reading
from radfound.records.answers import AnswerJournal, journal_path
from radfound.records.corrections import CorrectionLog, log_path
from radfound.records.scores import ScoreBook, scores_path
from radfound.teaching import Teaching
from radfound.teaching.decisions import Decisions, decisions_path

QUESTION = "Was contrast given?"
WIDTH = 16


class Fields:
    """Reads the same features from every study."""

    finding_names = ()

    def reading(self, study, region=None):
        return Reading({}, {}, {"contrast": {"yes": 0.5, "no": 0.5}}, True, vector(True))

    def answer(self, study, question):
        return None


def vector(given, noise=0.0):
    return np.full(WIDTH, 1.0 if given else -1.0, np.float32) + noise


@pytest.fixture
def service(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 200, (6, 6, 4)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2, 3, 1])), tmp_path / "new.nii.gz")
    log, features = CorrectionLog(log_path(tmp_path)), StudyFeatures(tmp_path / "features")
    service = RadFoundService(
        StudyDatastore(str(tmp_path)),
        log,
        ServedModels(one_model("radfound-tiny"), tmp_path),
        AnswerJournal(journal_path(tmp_path)),
        ScoreBook(scores_path(tmp_path)),
        teaching=Teaching(
            log,
            Decisions(decisions_path(tmp_path)),
            features=features.vector,
            fields=features.fields,
            chances=features.chances,
        ),
        features=features,
    )
    service.engine().fields = Fields()
    return service


def teach(service, count=24):
    chance = np.random.default_rng(0)
    for number in range(count):
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        given = number % 2 == 0
        noisy = vector(given, chance.normal(0, 0.5, WIDTH))
        service.features.keep(digest, noisy, {}, {})
        service.log.append(
            Correction(
                images=(f"s{number}",), task="vqa", question=QUESTION, model_text="?",
                verdict="edited", text="Yes" if given else "No", author="Dr A", image_hash=digest,
            )
        )  # fmt: skip


def test_a_head_answers_the_first_question_about_a_study(service):
    teach(service)
    answer = service.answer(service.inquire("vqa", {"question": QUESTION}, image="new"))
    assert (answer.source, answer.text) == ("head", "Yes")


def test_what_is_kept_of_a_study_is_found_again_and_older_files_are_completed(tmp_path):
    digest, chances = "0" * 64, {"contrast": {"yes": 0.75, "no": 0.25}}
    older = StudyFeatures(tmp_path)
    older.keep(digest, vector(True), {"modality": "CT"}, {})
    assert StudyFeatures(tmp_path).chances(digest) == {}
    StudyFeatures(tmp_path).keep(digest, vector(True), {"modality": "CT"}, chances)
    again = StudyFeatures(tmp_path)
    assert again.chances(digest) == chances and again.fields(digest) == {"modality": "CT"}
    assert again.vector(digest) == pytest.approx(vector(True))


def test_what_other_classifiers_said_of_a_study_is_replaced(tmp_path):
    digest, features = "0" * 64, StudyFeatures(tmp_path)
    features.keep(digest, vector(True), {"modality": "CT"}, {"contrast": {"yes": 0.75, "no": 0.25}})
    chances = {"contrast": {"yes": 0.5, "no": 0.5}}
    features.keep(digest, vector(False), {"modality": "MRI"}, chances)
    again = StudyFeatures(tmp_path)
    assert again.chances(digest) == chances and again.fields(digest) == {"modality": "MRI"}
    assert again.vector(digest) == pytest.approx(vector(False))
