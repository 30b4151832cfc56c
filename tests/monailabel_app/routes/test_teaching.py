import pytest

from radfound.records.corrections import CorrectionLog, log_path
from tests.monailabel_app.conftest import CT, VOLUME, fill_with_studies, running_server


def record(server, body):
    assert server.post("/radfound/corrections", json=body).json()["recorded"]
    return body["id"]


def corrections(server):
    return {row["id"] for row in server.get("/radfound/corrections").json()["corrections"]}


def test_withdrawn_correction_is_gone_from_every_list_and_stays_in_the_log(server, correction):
    made = record(server, correction(question="Is there a clip?"))
    before = server.get("/radfound/health").json()["corrections"]
    reply = server.post(f"/radfound/corrections/{made}/withdraw", json={"author": "Dr B"})
    assert reply.json() == {"id": made, "withdrawn": True}
    assert made not in corrections(server)
    assert server.get("/radfound/health").json()["corrections"] == before - 1
    again = server.post(f"/radfound/corrections/{made}/withdraw", json={"author": "Dr B"})
    assert again.json() == {"id": made, "withdrawn": False}
    log = CorrectionLog(log_path(server.studies))
    assert made in {row.id for row in log.rows(withdrawn=True)}
    assert log.verify().is_whole


@pytest.mark.parametrize(
    ("path", "body", "status", "named"),
    [
        ("corrections/unknown/withdraw", {"author": "Dr B"}, 404, "unknown"),
        ("corrections/unknown/withdraw", {}, 400, "author"),
        ("wordings/unknown/accept", {"author": "Dr B"}, 404, "template"),
        ("wordings/unknown/refuse", {"author": 5}, 400, "author"),
    ],
)
def test_wrong_request_is_refused_with_what_to_do(server, path, body, status, named):
    reply = server.post(f"/radfound/{path}", json=body)
    assert reply.status_code == status and named in reply.json()["detail"]["message"]


def test_effect_names_the_unread_copy_of_a_corrected_study(server, correction):
    content = (server.studies / f"{VOLUME}.nii.gz").read_bytes()
    reply = server.put(
        "/datastore/image?image=copy-of-volume", files={"file": ("copy-of-volume.nii.gz", content)}
    )
    assert reply.ok, reply.text
    made = record(server, correction(question="Is there a second clip?", text="Yes"))
    found = server.get(f"/radfound/corrections/{made}/effect").json()
    [change] = [each for each in found["changes"] if each["images"] == ["copy-of-volume"]]
    assert (change["before"], change["after"], change["source"]) == (None, "Yes", "recall")
    assert found["told"] == "this correction changes the answer on 1 unread study"
    assert server.get("/radfound/corrections/unknown/effect").status_code == 404


def test_templates_and_readers_are_listed(server, correction):
    record(server, correction(image=CT, question="Is there a stent?", author="Dr A", text="Yes"))
    record(server, correction(image=CT, question="Is there a stent?", author="Dr B", text="No"))
    assert server.get("/radfound/wordings").json() == {"wordings": []}
    found = server.get("/radfound/readers").json()
    readers = {each["author"]: each for each in found["readers"]}
    assert found["confirm"] == 1
    assert readers["Dr A"]["others"]["compared"] == readers["Dr A"]["others"]["disagreed"] == 1
    assert readers["Dr A"]["doubts"] == []


def test_server_refuses_a_wrong_number_of_confirming_readers(tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    fill_with_studies(studies)
    with pytest.raises(AssertionError, match="confirm: found '0'"):
        with running_server(studies, tmp_path / "server.log", "--conf", "confirm", "0"):
            pass
