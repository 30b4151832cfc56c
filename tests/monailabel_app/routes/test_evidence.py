"""Evidence maps over the wire, by plain requests and by MONAI Label's own client."""

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from monailabel.client.client import MONAILabelUtils
from requests_toolbelt.multipart import decoder

from ..conftest import CT, PICTURE, VOLUME

QUESTION = {"question": "What is shown?", "max_new_tokens": 6}


def asked(server, image, output, model="radfound_vqa", **params):
    reply = server.post(
        f"/infer/{model}",
        params={"image": image, "output": output},
        data={"params": json.dumps({**QUESTION, **params})},
    )
    assert reply.ok, reply.text
    return reply


def parts_of(reply):
    found = {}
    for part in decoder.MultipartDecoder.from_response(reply).parts:
        name = part.headers[b"Content-Disposition"].decode().split('name="')[1].split('"')[0]
        found[name] = part.content
    return found


def read_map(content, folder):
    path = folder / "map.nrrd"
    path.write_bytes(content)
    return sitk.ReadImage(str(path))


def test_all_is_the_answer_and_a_map_in_the_volumes_geometry(server, tmp_path):
    parts = parts_of(asked(server, VOLUME, "all"))
    assert set(parts) == {"params", "image"}
    answer = json.loads(parts["params"])
    assert answer["schema"] == "radfound.answer/1"
    assert answer["evidence"] == "evidence.nrrd"
    assert answer["timings_ms"]["evidence"] > 0
    plain = server.ask(VOLUME, **QUESTION).json()
    assert (answer["text"], plain["evidence"]) == (plain["text"], None)

    found = read_map(parts["image"], tmp_path)
    volume = nibabel.load(server.studies / f"{VOLUME}.nii.gz")
    assert found.GetSize() == volume.shape
    corner = [n - 1 for n in volume.shape]
    for ijk in ([0, 0, 0], corner):
        place = np.array(found.TransformIndexToPhysicalPoint(ijk)) * [-1, -1, 1]
        assert np.allclose(place, (volume.affine @ [*ijk, 1])[:3], atol=1e-4)
    assert sitk.GetArrayFromImage(found).max() > 100


def test_image_is_the_map_alone(server, tmp_path):
    reply = asked(server, PICTURE, "image")
    assert 'filename="evidence.nrrd"' in reply.headers["Content-Disposition"]
    assert read_map(reply.content, tmp_path).GetSize()[2] == 1


@pytest.mark.parametrize("model", ["radfound_caption", "radfound_report"])
def test_captions_and_reports_have_maps(server, model):
    assert parts_of(asked(server, CT, "all", model))["image"].startswith(b"NRRD")


def test_every_view_has_a_map_of_its_own(server, tmp_path):
    parts = parts_of(asked(server, CT, "all", images=[CT, PICTURE]))
    assert set(parts) == {"params", "image", "image_2"}
    assert read_map(parts["image"], tmp_path).GetSize()[:2] == (128, 128)
    assert read_map(parts["image_2"], tmp_path).GetSize()[:2] == (20, 24)


def test_no_map_is_made_unless_it_is_asked_for(server):
    for output in (None, "json"):
        answer = asked(server, VOLUME, output).json()
        assert answer["evidence"] is None and "evidence" not in answer["timings_ms"]
    answer = asked(server, VOLUME, "json", evidence=True).json()
    assert answer["evidence"] is None


def test_monai_labels_client_gets_answer_and_map(client, tmp_path):
    file, answer = client.infer("radfound_vqa", VOLUME, {**QUESTION, "evidence": True})
    assert answer["evidence"] == "evidence.nrrd"
    assert sitk.ReadImage(file).GetSize() == (24, 20, 16)


def test_what_monai_labels_client_makes_of_a_reply_are_form_and_file(server):
    status, form, files, _ = MONAILabelUtils.http_multipart(
        "POST",
        server.url,
        f"/infer/radfound_vqa?image={VOLUME}&output=all",
        {"params": json.dumps(QUESTION)},
        {},
    )
    assert status == 200
    assert json.loads(form["params"])["evidence"] == "evidence.nrrd"
    assert list(files) == ["evidence.nrrd"]


def explained(server, answer, output="image", **body):
    body = {"answer": answer, **body}
    return server.post("/radfound/evidence", params={"output": output}, json=body)


def test_an_answer_that_was_given_is_explained_without_asking_again(server, tmp_path):
    parts = parts_of(asked(server, VOLUME, "all"))
    answer = json.loads(parts["params"])
    reply = explained(server, answer)
    assert reply.ok, reply.text
    assert np.array_equal(
        sitk.GetArrayFromImage(read_map(reply.content, tmp_path)),
        sitk.GetArrayFromImage(read_map(parts["image"], tmp_path)),
    )


def test_a_sentence_of_a_report_has_a_map_of_its_own(server, tmp_path):
    answer = asked(server, VOLUME, None, "radfound_report").json()
    answer["text"] = "Findings: Clear lungs. No effusion."
    found = [
        sitk.GetArrayFromImage(read_map(explained(server, answer, **body).content, tmp_path))
        for body in ({}, {"text": "Clear lungs."}, {"text": "No effusion."})
    ]
    assert {each.shape for each in found} == {found[0].shape}
    assert not np.array_equal(found[1], found[2])
    assert explained(server, None).status_code == 400
    for text in (3, " "):
        assert explained(server, answer, text=text).status_code == 400
    listed = explained(server, answer, "json", text="No effusion.").json()
    axis, position = next(iter(listed["maps"][0]["highest"].items()))
    slices = server.get(f"/radfound/evidence/0/{axis}/{position}?answer={listed['id']}")
    assert slices.ok, slices.text


def test_an_answer_of_a_reader_has_no_map_unless_it_is_asked_for(server):
    question = "Is the reader right?"
    correction = {
        "schema": "radfound.correction/1",
        "id": "evidence-1",
        "images": [CT],
        "task": "vqa",
        "question": question,
        "model_text": "No.",
        "verdict": "edited",
        "text": "Yes, always.",
        "author": "A. Reader",
    }
    assert server.post("/radfound/corrections", json=correction).ok
    answer = asked(server, CT, "all", question=question).json()
    assert (answer["source"], answer["evidence"]) == ("recall", None)
    assert answer["evidence_note"].startswith("This answer comes from a reader")
    params = {"image": CT, "output": "image"}
    data = {"params": json.dumps({"question": question})}
    refused = server.post("/infer/radfound_vqa", params=params, data=data)
    assert refused.status_code == 400
    assert "comes from a reader" in refused.json()["detail"]["message"]
    assert explained(server, answer).content.startswith(b"NRRD")
    own = parts_of(asked(server, CT, "all", question=question, model_only=True))
    assert json.loads(own["params"])["evidence_note"] is None
    server.post("/radfound/corrections/evidence-1/withdraw", json={"author": "A. Reader"})


def test_the_wish_for_a_map_is_true_or_false(server):
    reply = server.ask(VOLUME, evidence="please")
    assert reply.status_code == 400
    assert reply.json()["detail"]["message"].startswith("evidence")
