"""The whole loop on real images and the shipped model: ask, correct, train, ask again, go back."""

import importlib.util
import shutil
import uuid
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from .conftest import running_server

BRAIN, CT, MR = "brain", "ct", "mr"
CORRECTED = {
    (BRAIN, "Is this the brain of one patient?"): "No, it is the mean of 152 healthy brains.",
    (CT, "What does the image show?"): "A coarse slice through the chest.",
    (MR, "Who is shown?"): "A test image without a name.",
}
OTHERS = [
    (BRAIN, "Which imaging modality is this?"),
    (BRAIN, "In which plane is this image?"),
    (BRAIN, "Which body region is shown?"),
    (BRAIN, "Is there a fracture of the skull?"),
    (CT, "Which imaging modality is this?"),
    (CT, "Is there a pneumothorax?"),
    (CT, "Which body region is shown?"),
    (MR, "Which imaging modality is this?"),
    (MR, "In which plane is this image?"),
    (MR, "Is contrast used?"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning")
    studies = folder / "studies"
    studies.mkdir()
    nilearn = Path(importlib.util.find_spec("nilearn").submodule_search_locations[0])
    brain = nilearn / "datasets" / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    shutil.copyfile(brain, studies / f"{BRAIN}.nii.gz")
    for name, source in ((CT, "CT_small.dcm"), (MR, "MR_small.dcm")):
        shutil.copyfile(get_testdata_file(source, download=False), studies / f"{name}.dcm")
    with running_server(studies, folder / "server.log", model="radfound-mini") as server:
        yield server


def answers(server, questions):
    # Of the model itself: classifiers and readers' texts would answer most of these.
    return {pair: server.ask(*pair, model_only=True).json() for pair in questions}


def texts(found, of=str):
    return {pair: of(answer["text"]) for pair, answer in found.items()}


@pytest.mark.slow
def test_three_corrections_change_three_answers_of_the_running_server_and_no_others(server):
    before, others_before = answers(server, CORRECTED), answers(server, OTHERS)
    assert {answer["model"]["adapter"] for answer in before.values()} == {None}
    for (image, question), answer in before.items():
        correction = {
            "schema": "radfound.correction/1",
            "id": str(uuid.uuid4()),
            "answer_id": answer["id"],
            "images": [image],
            "task": "vqa",
            "question": question,
            "model_text": answer["text"],
            "verdict": "edited",
            "text": CORRECTED[image, question],
            "author": "a reader",
        }
        assert server.post("/radfound/corrections", json=correction).status_code == 200
    assert server.post("/train/radfound", json={}).status_code == 200
    status = server.training_status(timeout_s=900)
    adapters = server.get("/radfound/adapters").json()
    assert status["status"] == "DONE", status["details"]
    after, others_after = answers(server, CORRECTED), answers(server, OTHERS)
    assert texts(after) == CORRECTED
    assert texts(others_after, str.lower) == texts(others_before, str.lower)
    assert (
        {answer["model"]["adapter"] for answer in after.values()} == {adapters["active"]} != {None}
    )
    assert server.post("/radfound/adapters/rollback").status_code == 200
    assert texts(answers(server, CORRECTED)) == texts(before)
