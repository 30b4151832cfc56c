"""What the running server does beyond what MONAI Label's client asks of it."""

import io
import json
import re
import threading
import time
import zipfile

import pytest
import requests

from ..conftest import CT, PICTURE, QUICK_TRAINING, SERIES, VOLUME


def read_events(response):
    """Go through server-sent events as (name, data)."""
    name = None
    for line in response.iter_lines(decode_unicode=True):
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def stream(server, **body):
    return server.post("/radfound/ask", json=body, stream=True)


# Streaming


def test_tokens_come_first_and_make_up_the_answer(server):
    with stream(server, image=VOLUME, question="What is shown?") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        *tokens, (name, answer) = read_events(response)
    assert {event for event, _ in tokens} == {"token"}
    assert name == "answer"
    assert "".join(data["text"] for _, data in tokens).strip() == answer["text"]
    assert answer["schema"] == "radfound.answer/1"
    whole = server.ask(VOLUME, "What is shown?").json()
    assert whole["text"] == answer["text"]


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"question": "What?"}, 400, "image"),
        ({"image": "no-such-image", "question": "What?"}, 404, "image"),
        ({"image": VOLUME}, 400, "question"),
        ({"image": VOLUME, "task": "segment"}, 400, "task"),
        ({"image": VOLUME, "question": "What?", "model": "other"}, 400, "model"),
        ({"image": VOLUME, "question": "What?", "region": {"box_mm": 3}}, 400, "region"),
        ({"image": VOLUME, "question": "What?", "max_new_tokens": 0}, 400, "max_new_tokens"),
        ({"image": VOLUME, "question": "What?", "session_id": 3}, 400, "session_id"),
    ],
)
def test_a_wrong_question_is_refused_before_the_stream_begins(server, body, status, named):
    response = server.post("/radfound/ask", json=body)
    assert response.status_code == status
    assert named in response.json()["detail"]["message"]


def test_closing_the_connection_cancels_the_answer(server):
    long = {"image": VOLUME, "task": "report", "max_new_tokens": 512}
    logged = len(server.log.read_text())
    readers = [stream(server, **long) for _ in range(6)]
    for reader in readers:
        reader.close()
    began = time.monotonic()
    assert server.ask(VOLUME, max_new_tokens=1).ok
    assert time.monotonic() - began < 5
    assert "Traceback" not in server.log.read_text()[logged:]


def test_info_answers_while_answers_are_written(server):
    long = {"image": VOLUME, "task": "report", "max_new_tokens": 512}
    threads = [
        threading.Thread(target=lambda: server.post("/radfound/ask", json=long)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    slowest = 0.0
    while any(thread.is_alive() for thread in threads):
        began = time.monotonic()
        assert server.get("/info/").ok
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 1.0


def test_several_images_are_the_views_of_one_study(server):
    alone = server.ask(CT).json()
    together = server.ask(CT, images=[CT, PICTURE]).json()
    assert alone["images"] == [CT]
    assert together["images"] == [CT, PICTURE]
    assert together["text"] != alone["text"] or together["confidence"] != alone["confidence"]


def test_a_follow_up_does_not_read_again(server):
    def studies_read() -> str:
        [line] = re.findall(
            r'radfound_cache_total\{cache="study",found="miss"\} .*',
            server.get("/radfound/metrics").text,
        )
        return line

    server.ask(VOLUME, "Which organ?")
    before = studies_read()
    turns = [{"question": "Which organ?", "answer": "the liver"}]
    assert server.ask(VOLUME, "And now?", history=turns).ok
    assert studies_read() == before


# Images


def test_an_image_is_downloaded_as_it_is_and_a_dicom_folder_as_a_zip(server):
    file = server.get("/datastore/image", params={"image": VOLUME})
    assert file.content == (server.studies / f"{VOLUME}.nii.gz").read_bytes()
    packed = server.get("/datastore/image", params={"image": SERIES})
    assert packed.headers["content-disposition"].endswith(f'"{SERIES}.zip"')
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    assert found == {each.name: each.read_bytes() for each in (server.studies / SERIES).iterdir()}
    assert server.get("/datastore/image", params={"image": "no-such-image"}).status_code == 404


# Corrections


def test_both_ways_in_end_in_the_log(server, correction):
    by_route, by_label = correction(), correction()
    assert server.post("/radfound/corrections", json=by_route).json()["recorded"] is True
    file = {"label": ("corrections.json", json.dumps({"corrections": [by_label]}))}
    assert server.put(f"/datastore/label?image={VOLUME}", files=file).ok
    rows = server.get("/radfound/corrections", params={"image": VOLUME}).json()["corrections"]
    found = {row["id"]: row for row in rows}
    assert found[by_route["id"]]["text"] == found[by_label["id"]]["text"] == "axial"
    assert found[by_route["id"]]["image_hash"] == found[by_label["id"]]["image_hash"] is not None


def test_a_correction_is_about_the_region_that_was_asked_about_unless_it_says_otherwise(
    server, correction
):
    asked = {"box_mm": [[0.0, 0.0, 0.0], [20.0, 20.0, 20.0]]}
    other = {"slice_mm": {"point": [5.0, 5.0, 5.0], "normal": [0.0, 0.0, 1.0]}}
    answer = server.ask(VOLUME, region=asked).json()
    silent, explicit = (
        correction(answer_id=answer["id"], **where) for where in ({}, {"region": other})
    )
    for row in (silent, explicit):
        for expected in (True, False):
            reply = server.post("/radfound/corrections", json=row)
            assert reply.json() == {"id": row["id"], "recorded": expected}
    rows = server.get("/radfound/corrections", params={"image": VOLUME}).json()["corrections"]
    found = {row["id"]: row["region"] for row in rows}
    assert (found[silent["id"]], found[explicit["id"]]) == (asked, other)


def test_the_same_correction_twice_is_recorded_once(server, correction):
    row = correction()
    replies = [server.post("/radfound/corrections", json=row).json() for _ in range(2)]
    assert [reply["recorded"] for reply in replies] == [True, False]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"verdict": "approved"}, "verdict"),
        ({"text": " "}, "text"),
        ({"images": []}, "images"),
        ({"images": ["no-such-image"]}, "images"),
        ({"author": 7}, "author"),
        ({"question": None}, "question"),
        ({"schema": "other/1"}, "schema"),
        ({"colour": "red"}, "colour"),
        ({"region": {"box_mm": 3}}, "region"),
    ],
)
@pytest.mark.parametrize("way", ["route", "label"])
def test_an_invalid_correction_names_the_field_and_leaves_the_earlier_one(
    server, correction, changes, field, way
):
    good, bad = correction(PICTURE), correction(PICTURE, **changes)
    file = {"label": ("corrections.json", json.dumps(good))}
    assert server.put(f"/datastore/label?image={PICTURE}", files=file).ok
    rows = server.get("/radfound/corrections").json()
    if way == "route":
        response = server.post("/radfound/corrections", json=bad)
    else:
        file = {"label": ("corrections.json", json.dumps([correction(PICTURE), bad]))}
        response = server.put(f"/datastore/label?image={PICTURE}", files=file)
    assert 400 <= response.status_code < 500
    assert response.json()["detail"]["message"].startswith(field)
    assert server.get("/radfound/corrections").json() == rows
    label = server.get("/datastore/label", params={"label": PICTURE, "tag": "final"})
    assert label.json() == good


def test_another_correction_under_a_used_id_is_refused(server, correction):
    row = correction()
    server.post("/radfound/corrections", json=row)
    response = server.post("/radfound/corrections", json={**row, "text": "coronal"})
    assert response.status_code == 400
    assert response.json()["detail"]["message"].startswith("id")


def test_a_segmentation_is_saved_as_monai_label_saves_it(server):
    rows = server.get("/radfound/corrections").json()
    content = (server.studies / f"{VOLUME}.nii.gz").read_bytes()
    file = {"label": ("mask.nii.gz", content)}
    assert server.put(f"/datastore/label?image={VOLUME}&tag=masks", files=file).ok
    params = {"label": VOLUME, "tag": "masks"}
    assert server.get("/datastore/label", params=params).content == content
    assert server.get("/radfound/corrections").json() == rows


# Adapters and training


def test_one_call_chooses_an_adapter_and_one_goes_back(server, correction):
    question = "Which side is shown?"
    server.post("/radfound/corrections", json=correction(question=question, text="left"))
    response = server.post("/train/radfound", json=QUICK_TRAINING)
    assert response.ok
    phases = phases_of_a_training(server)
    assert phases[0] == "starting" and "learning the corrections" in phases
    state = server.get("/radfound/training").json()
    assert (state["state"], state["schema"]) == ("published", "radfound.training_status/1")
    assert all(check["passed"] in (True, None) and check["words"] for check in state["checks"])
    assert state["corrections"] > 0 and state["seconds"] > 0
    listed = server.get("/radfound/adapters").json()
    newest = listed["adapters"][-1]["id"]
    assert listed["active"] == newest
    assert server.ask(VOLUME, question).json()["model"]["adapter"] == newest

    assert server.post("/radfound/adapters/base/activate").json()["active"] is None
    assert server.ask(VOLUME, question).json()["model"]["adapter"] is None
    assert server.post("/radfound/adapters/rollback").json()["active"] == newest
    assert server.post(f"/radfound/adapters/{newest}/activate").ok
    assert server.ask(VOLUME, question).json()["text"] == "left"
    assert server.post("/radfound/adapters/a-9999/activate").status_code == 404
    server.post("/radfound/adapters/base/activate")


def phases_of_a_training(server):
    phases, deadline = [], time.monotonic() + 300
    while (state := server.get("/radfound/training").json())["state"] == "running":
        assert time.monotonic() < deadline
        if state["phase"] not in phases:
            phases.append(state["phase"])
        time.sleep(0.05)
    return phases


def test_a_training_request_with_a_wrong_setting_is_refused(server):
    for settings, named in (({"max_steps": "many"}, "max_steps"), ({"rank": -1}, "rank")):
        response = server.post("/train/radfound", json=settings)
        assert response.status_code == 400
        assert response.json()["detail"]["message"].startswith(named)
    assert server.post("/train/no_such_trainer", json={}).status_code == 404


def test_force_and_author_of_a_training_are_checked(server):
    for body, named in (
        ({"force": "yes"}, "force"),
        ({"force": 1}, "force"),
        ({"author": 7}, "author"),
    ):
        response = server.post("/train/radfound", json=body)
        assert response.status_code == 400
        assert response.json()["detail"]["message"].startswith(named)


def test_a_refused_training_shows_its_verdict_and_a_second_one_waits_or_is_refused(
    server, correction
):
    server.post("/radfound/corrections", json=correction(text="never learnt in one step"))
    active = server.get("/radfound/adapters").json()["active"]
    hasty = {"max_steps": 1, "learning_rate": 1e-6, "author": "an annotator"}
    assert server.post("/train/radfound", json=hasty).ok
    assert server.get("/radfound/training").json()["state"] == "running"
    assert server.post("/train/radfound", json=hasty).status_code == 429
    assert server.training_status()["status"] == "DONE"
    listed = server.get("/radfound/adapters").json()
    refused = listed["refused"][-1]
    assert listed["active"] == active and refused["author"] == "an annotator"
    assert not refused["gate"]["passed"] and "reproduced" in refused["reason"]
    state = server.get("/radfound/training").json()
    assert (state["state"], state["message"]) == ("refused", refused["reason"])
    made = [check for check in state["checks"] if check["passed"] is not None]
    assert [check["words"] for check in made] == [
        check["words"] for check in refused["gate"]["checks"]
    ]
    (missed,) = [check for check in made if check["name"] == "corrections"]
    assert not missed["passed"] and missed["value"] < missed["limit"]


def test_a_training_that_is_cancelled_leaves_nothing_half_made(server, correction):
    server.post("/radfound/corrections", json=correction(text="a text to be learnt at length"))
    before = server.get("/radfound/adapters").json()
    own = server.studies / ".radfound"
    server.post("/train/radfound", json={"max_steps": 100_000, "learning_rate": 1e-9})
    deadline = time.monotonic() + 300
    while server.get("/radfound/training").json()["steps"] == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.delete("/train/").ok
    assert server.training_status()["status"] == "STOPPED"
    assert server.get("/radfound/adapters").json() == before
    assert not [path for path in own.rglob(".tmp-*")]
    assert server.get("/radfound/training").json()["state"] == "stopped"
    assert server.ask(VOLUME).ok


def test_batch_answers_become_labels(server):
    response = server.post("/batch/infer/radfound_caption?images=all", json={"max_batch_size": 1})
    assert response.ok
    while server.get("/batch/infer").json()["status"] in ("SUBMITTED", "RUNNING"):
        time.sleep(0.2)
    assert server.get("/batch/infer").json()["status"] == "DONE"
    objects = server.get("/datastore/?output=all").json()["objects"]
    labelled = [image for image, entry in objects.items() if "original" in entry["labels"]]
    params = {"label": labelled[0], "tag": "original"}
    assert server.get("/datastore/label", params=params).json()["schema"] == "radfound.answer/1"


# Health


def test_health_says_what_answers(server):
    health = server.get("/radfound/health").json()
    assert health["status"] == "ok"
    assert health["model"]["name"] == "radfound-tiny"


def test_the_server_listens_on_this_machine_only(server):
    assert requests.get(server.url.replace("127.0.0.1", "localhost") + "/radfound/health").ok
    assert f"Uvicorn running on {server.url}" in server.log.read_text()
