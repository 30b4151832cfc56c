"""Fifty studies, of which one of each kind cannot be read: all that goes through them goes on, and says why."""

import json
import zipfile

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from monailabel_app.lib.activelearning import strategies
from monailabel_app.lib.answering.models import ServedModels
from monailabel_app.lib.answering.service import RadFoundService
from monailabel_app.lib.infers import RadFoundInfer
from monailabel_app.lib.infers.batch import RadFoundBatch
from monailabel_app.lib.scoring import RadFoundScoring
from monailabel_app.lib.studies.datastore import StudyDatastore
from monailabel_app.lib.trainers import RadFoundTrainer, TrainingState
from radfound.correction import Correction
from radfound.engine.models.settings import one_model
from radfound.reading.volumes import nifti
from radfound.records.answers import AnswerJournal, journal_path
from radfound.records.corrections import CorrectionLog, log_path
from radfound.records.scores import ScoreBook, scores_path

from ...radfound.miniature import ramp, write_dicom, write_series
from ..conftest import QUICK_TRAINING

STUDIES = 50


def cut(path, count):
    path.write_bytes(path.read_bytes()[:count])


def write_nifti(path, voxels):
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2, 3, 1])), path)
    return path


def write_unreadable(folder):
    """One study of each kind that cannot be read; returns their ids."""
    (folder / "text.nii.gz").write_text("no image")
    (folder / "empty.nrrd").touch()
    cut(write_nifti(folder / "cut.nii.gz", ramp(8, 8, 8)), 200)
    write_nifti(folder / "nan.nii", np.full((4, 4, 4), np.nan, np.float32))
    write_nifti(folder / "crash.nii", ramp(3, 3, 3))
    for name in ("picture.png", "photo.jpg"):
        Image.fromarray(ramp(40, 40, dtype=np.uint8)).save(folder / name)
        cut(folder / name, 60)
    (folder / "detached.mhd").write_text(
        "NDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = gone.raw\n"
    )
    (folder / "damaged.zip").write_bytes(b"PK\x03\x04 and no more")
    with zipfile.ZipFile(folder / "nested.zip", "w") as archive:
        archive.write(folder / "damaged.zip", "inner.zip")
    cut(write_dicom(folder / "pixels.dcm", ramp(64, 64)), 900)
    cut(write_dicom(folder / "IM0001", ramp(4, 4)), 300)
    write_dicom(folder / "report.dcm", ramp(1, 1), Modality="SR")
    write_dicom(folder / "huge.dcm", ramp(1, 1), NumberOfFrames=2**31 - 1)
    for series in ("1", "2"):
        write_series(folder / "series" / series, ramp(2, 4, 4), SeriesInstanceUID=series)
    write_series(folder / "gap", ramp(5, 4, 4))
    for path in (folder / "gap").iterdir():
        if pydicom.dcmread(path).ImagePositionPatient[2] == 2:
            path.unlink()
    return {StudyDatastore(str(folder))._to_id(path.name)[0] for path in folder.iterdir()} - {
        "datastore_v2.json", ".lock", "labels",
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fifty")


@pytest.fixture(scope="module")
def unreadable(folder):
    return write_unreadable(folder)


@pytest.fixture(scope="module")
def readable(folder, unreadable):
    ids = [f"study{number}" for number in range(STUDIES - len(unreadable))]
    for seed, name in enumerate(ids):
        voxels = np.random.default_rng(seed).integers(0, 200, (6, 6, 4)).astype(np.int16)
        write_nifti(folder / f"{name}.nii.gz", voxels)
    return ids


@pytest.fixture(scope="module")
def service(folder, readable):
    return RadFoundService(
        StudyDatastore(str(folder)),
        CorrectionLog(log_path(folder)),
        ServedModels(one_model("radfound-tiny"), folder),
        AnswerJournal(journal_path(folder)),
        ScoreBook(scores_path(folder)),
    )


@pytest.fixture(scope="module", autouse=True)
def corrected(service, readable, unreadable):
    """Corrections of all that can be read but one study, and of one that could be read once."""
    for image in (*readable[1:], "cut"):
        service.log.append(
            Correction(
                images=(image,), task="vqa", question="Which plane?", model_text="x",
                verdict="edited", text="axial", author="a reader",
            )
        )  # fmt: skip


@pytest.fixture(autouse=True)
def crash(monkeypatch):
    """One study on which a reader fails as nobody has foreseen."""
    read = nifti.read_nifti

    def read_or_fail(source, volume):
        if source.name == "crash.nii":
            raise ZeroDivisionError
        return read(source, volume)

    monkeypatch.setattr(nifti, "read_nifti", read_or_fail)


def last_report(caplog, begin):
    lines = [line for line in caplog.messages if line.startswith(f"{begin} {{")]
    return json.loads(lines[-1].removeprefix(begin))


def test_all_fifty_are_listed(service, readable, unreadable):
    assert set(service.datastore.list_images()) == {*readable, *unreadable}
    assert len(readable) + len(unreadable) == STUDIES


@pytest.mark.parametrize("strategy", ["random", "first", "uncertainty", "diversity", "hybrid"])
def test_every_strategy_passes_over_them_and_says_why(service, readable, unreadable, strategy):
    for reader in range(3):
        found = strategies(service)[strategy]({"client_id": reader}, service.datastore)
        assert found["id"] == readable[0]
        assert {each["id"] for each in found["skipped"]} <= unreadable - {"cut"}
        assert all("; " in each["reason"] for each in found["skipped"])


def test_the_first_by_name_passes_over_all_before_it(service, unreadable):
    found = strategies(service)["first"]({"client_id": "a reader"}, service.datastore)
    before = [image for image in unreadable - {"cut"} if image < found["id"]]
    assert f"{len(before)} before it cannot be read" in found["reason"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_passes_over_them_and_says_why(service, readable, unreadable, workers, caplog):
    caplog.set_level("INFO")
    infer = RadFoundInfer("vqa", service)
    request = {"question": "Which plane?", "max_new_tokens": 1, "max_workers": workers}
    found = RadFoundBatch()(
        {**request, "multi_gpu": False},
        service.datastore,
        lambda asked, _: {"params": infer(asked)[1]},
    )
    assert {image for image, each in found.items() if "params" in each} == set(readable)
    assert {image for image, each in found.items() if each.get("skipped")} == unreadable
    report = last_report(caplog, "batch")
    assert (report["answered"], report["unreadable"]) == (len(readable), len(unreadable))
    assert report["skipped"][0]["reason"]


def test_scoring_passes_over_them_and_says_why(service, readable, unreadable, caplog):
    caplog.set_level("INFO")
    found = RadFoundScoring(service)({"questions": ["Which plane?"]}, service.datastore)
    assert (found["scored"], found["unreadable"]) == (len(readable), len(unreadable))
    assert last_report(caplog, "scoring") == found
    assert {each["id"] for each in found["skipped"]} < unreadable


def test_training_passes_over_them_and_says_why(service, folder, readable):
    trainer = RadFoundTrainer(service, TrainingState(folder / ".radfound" / "training.json"))
    found = trainer({**QUICK_TRAINING, "newest": STUDIES, "max_steps": 1}, service.datastore)
    assert found["metrics"]["corrections"] == len(readable) - 1
    for each in (found, trainer.stats()):
        (skipped,) = each["skipped"]
        assert skipped["id"] == "cut" and skipped["reason"].startswith("cut.nii.gz: ")
