"""Studies of an archive, asked about, chosen, scored, trained on and opened as those of a folder are."""

import io
import json
import re
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monailabel.client import MONAILabelClient

from radfound.reading import read_study

from ..conftest import QUICK_TRAINING
from .conftest import serving
from .orthanc import Orthanc
from .synthetic import series_uid, study_uid, write_ct_study, write_mammogram
from .tls_proxy import proxy

pytestmark = pytest.mark.pacs

STUDIES = {study_uid(name) for name in ("ct", "ct-prior", "mg", "cr", "deid")}
QUESTION = "Ist das ein Pneumothorax?"


def listed(server):
    return set(server.get("/datastore/", params={"output": "all"}).json()["objects"])


def test_image_studies_are_listed_and_no_plan_waveform_or_report(pacs, archive):
    jpeg2000 = {row["0020000D"]["Value"][0] for row in _qido(archive, ModalitiesInStudy="NM")}
    assert listed(pacs) - {"uploaded"} == STUDIES | jpeg2000
    assert pacs.get("/info/").json()["datastore"]["total"] >= len(STUDIES)


def _qido(archive, **query):
    return archive.get("/dicom-web/studies", params=query).json()


@pytest.mark.parametrize(("study", "series"), [("mg", 4), ("cr", 2), ("ct-prior", 1), ("ct", 2)])
def test_a_study_is_asked_about_with_the_series_of_the_rule(pacs, study, series):
    answer = pacs.ask(study_uid(study), QUESTION)
    assert answer.status_code == 200, answer.text
    answer = answer.json()
    assert answer["images"] == [study_uid(study)]
    assert len(answer["series"]) == series and answer["series_rule"]


def test_a_localizer_is_left_out_and_a_series_can_be_named(pacs):
    by_rule = pacs.ask(study_uid("ct"), QUESTION).json()["series"]
    assert by_rule == [series_uid("ct", "standard"), series_uid("ct", "lung")]
    named = pacs.ask(study_uid("ct"), QUESTION, series="3").json()
    assert named["series"] == [series_uid("ct", "lung")]
    alone = pacs.ask(series_uid("ct", "standard"), QUESTION).json()
    assert alone["series"] == [series_uid("ct", "standard")]


def test_an_earlier_study_is_shown_as_prior(pacs):
    answer = pacs.ask(study_uid("ct"), QUESTION, series="2", prior=study_uid("ct-prior"))
    assert answer.status_code == 200, answer.text
    assert answer.json()["series"] == [
        series_uid("ct", "standard"),
        series_uid("ct-prior", "standard"),
    ]
    other = pacs.ask(study_uid("ct"), QUESTION, prior=study_uid("cr"))
    assert other.status_code == 400 and "another patient" in other.json()["detail"]["message"]


@pytest.mark.parametrize("study", ["mg", "cr", "ct-prior"])
def test_a_study_has_the_digest_of_the_same_files_in_a_folder(pacs, correction, files, study):
    sent = pacs.post("/radfound/corrections", json=correction(study_uid(study)))
    assert sent.status_code == 200, sent.text
    rows = pacs.get("/radfound/corrections", params={"image": study_uid(study)}).json()
    digest = rows["corrections"][-1]["image_hash"]
    assert digest == read_study(files / study_uid(study)).digest


def test_an_unknown_study_is_named_as_such(pacs):
    for image in ("1.2.3.4", "no-such-image"):
        answer = pacs.ask(image)
        assert answer.status_code == 404, answer.text


def test_a_study_opens_as_a_zip_of_its_series(pacs, tmp_path):
    client = MONAILabelClient(pacs.url, tmpdir=str(tmp_path))
    assert client.info()["name"] == "RadFound"
    found = pacs.get("/datastore/image", params={"image": study_uid("ct")})
    assert found.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(found.content)) as archive:
        folders = {name.split("/")[0] for name in archive.namelist()}
    assert folders == {series_uid("ct", "standard"), series_uid("ct", "lung")}
    path = tmp_path / "mg.zip"
    path.write_bytes(pacs.get("/datastore/image", params={"image": study_uid("mg")}).content)
    assert len(read_study(path).images) == 4


def test_the_extensions_client_opens_a_study_and_asks_about_it(pacs, tmp_path):
    from RadFoundLib.net.client import Client

    client = Client(pacs.url)
    first = client.download(study_uid("mg"), str(tmp_path))
    assert Path(first).is_file() and len(list(tmp_path.rglob("*.dcm"))) == 4
    answer = client.ask("vqa", [study_uid("mg")], QUESTION)
    assert answer["images"] == [study_uid("mg")] and len(answer["series"]) == 4
    assert client.next_study("hybrid")["id"]


def test_an_upload_beside_the_archive_is_asked_about(pacs, tmp_path):
    path = tmp_path / "uploaded.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((9, 8, 7), np.int16), np.eye(4)), path)
    client = MONAILabelClient(pacs.url, tmpdir=str(tmp_path))
    assert client.upload_image(str(path), "uploaded")["image"] == "uploaded"
    answer = pacs.ask("uploaded", QUESTION)
    assert answer.status_code == 200 and answer.json()["series"] == []
    assert "uploaded" in listed(pacs)


def test_no_reply_holds_a_name_or_a_path_of_the_server(pacs):
    for path in (
        "/info/",
        "/datastore/?output=all",
        f"/datastore/image/info?image={study_uid('ct')}",
    ):
        text = pacs.get(path).text
        assert "PID-77" not in text and str(pacs.state) not in text


def test_a_final_label_records_its_corrections_once(pacs, correction):
    row = correction(study_uid("cr"))
    for _ in range(2):
        label = ("answer.json", json.dumps(row).encode(), "application/json")
        params = {"image": study_uid("cr"), "tag": "final"}
        sent = pacs.put("/datastore/label", params=params, files={"label": label})
        assert sent.status_code == 200, sent.text
    rows = pacs.get("/radfound/corrections", params={"image": study_uid("cr")}).json()
    assert sum(each["id"] == row["id"] for each in rows["corrections"]) == 1
    assert pacs.get("/info/").json()["datastore"]["completed"] >= 1
    assert pacs.get("/datastore/dataset").status_code == 200


@pytest.fixture(scope="module")
def worked(tools, tmp_path_factory):
    """A server of its own whose archive cannot give one of its studies."""
    folder = tmp_path_factory.mktemp("worked")
    for write in (write_ct_study, write_mammogram):
        write(folder / "files")
    with Orthanc(folder / "orthanc", gdcm=False) as archive:
        archive.upload(folder / "files")
        with proxy(archive) as front:
            front.broken = study_uid("mg")
            with serving(archive, folder / "server", url=front.url) as server:
                yield server


@pytest.mark.parametrize("strategy", ["random", "first", "uncertainty", "diversity", "hybrid"])
def test_every_strategy_passes_over_a_study_that_cannot_be_fetched(worked, strategy):
    chosen = worked.post(f"/activelearning/{strategy}", json={"client_id": strategy})
    assert chosen.status_code == 200, chosen.text
    chosen = chosen.json()
    assert chosen["id"] == study_uid("ct")
    for each in chosen["skipped"]:
        assert each["id"] == study_uid("mg") and "archive" in each["reason"]


def test_batch_and_scoring_go_on_without_it(worked):
    for path, body in (
        ("/batch/infer/radfound_vqa", {"images": "all", "question": QUESTION}),
        ("/scoring/radfound", {}),
    ):
        done = worked.post(path, params={"run_sync": True}, json=body)
        assert done.status_code == 200, done.text
        assert re.search(r'unreadable\\*": 1\b', done.text), done.text[-600:]


def test_a_training_goes_on_without_it(worked, correction):
    for number in range(2):
        row = correction(study_uid("ct"), question=f"Which plane is this, {number}?")
        assert worked.post("/radfound/corrections", json=row).ok
    broken = worked.post("/radfound/corrections", json=correction(study_uid("mg")))
    assert broken.json()["recorded"] is True
    begun = worked.post("/train/radfound", json={**QUICK_TRAINING, "newest": 3, "force": True})
    assert begun.status_code == 200, begun.text
    status = worked.training_status(420)
    assert status["status"] == "DONE", status
    assert len(worked.get("/radfound/adapters").json()["adapters"]) == 1


def test_a_new_study_is_listed_within_half_a_minute(empty_archive, tmp_path, monkeypatch):
    from monailabel_app.lib.pacs import listing
    from monailabel_app.lib.pacs.datastore import PacsDatastore
    from monailabel_app.lib.pacs.settings import PacsSettings

    clock = [1000.0]
    monkeypatch.setattr(listing.time, "monotonic", lambda: clock[0])
    settings = PacsSettings.of(empty_archive.dicomweb, {}, empty_archive.variables)
    store = PacsDatastore(tmp_path / "state", tmp_path / "uploads", settings)
    assert store.list_images() == []
    write_mammogram(tmp_path / "files")
    empty_archive.upload(tmp_path / "files")
    assert store.list_images() == []
    clock[0] += 31
    assert store.list_images() == [study_uid("mg")]


def test_a_filter_hides_other_studies(archive, tmp_path):
    from monailabel_app.lib.pacs.datastore import PacsDatastore
    from monailabel_app.lib.pacs.settings import PacsSettings
    from radfound.exceptions import NotFoundError

    conf = {"pacs_query": "ModalitiesInStudy=MG&StudyDescription=*mammography*"}
    settings = PacsSettings.of(archive.dicomweb, conf, archive.variables)
    store = PacsDatastore(tmp_path / "state", tmp_path / "uploads", settings)
    assert store.list_images() == [study_uid("mg")]
    for image in (study_uid("ct"), series_uid("ct", "lung")):
        with pytest.raises(NotFoundError):
            store.path_of(image)


def test_a_large_series_is_fetched_in_little_memory_and_only_once(tools, tmp_path):
    """500 slices of 512 x 512, in a process of its own."""
    import subprocess
    import sys

    from .synthetic import write_ct_series

    write_ct_series(tmp_path / "files", "large", "thin", 500, size=512)
    with Orthanc(tmp_path / "orthanc") as archive:
        archive.upload(tmp_path / "files")
        script = _MEASURE.format(url=archive.dicomweb, user=archive.variables, state=str(tmp_path))
        command = [sys.executable, "-c", script, study_uid("large")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        peak_mb, instances = map(int, done.stdout.split())
        assert instances == 500
        assert peak_mb < 200, f"{peak_mb} MB over the start"


_MEASURE = """
import resource, sys, threading, time
from pathlib import Path
from monailabel_app.lib.pacs.datastore import PacsDatastore
from monailabel_app.lib.pacs.settings import PacsSettings
def rss_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20
state = Path({state!r})
store = PacsDatastore(state / "state", state / "uploads", PacsSettings.of({url!r}, {{}}, {user!r}))
store.list_images()
start, peak, done = rss_mb(), [0], threading.Event()
def watch():
    while not done.wait(0.01):
        peak[0] = max(peak[0], rss_mb())
threading.Thread(target=watch, daemon=True).start()
path = store.path_of(sys.argv[1])
done.set()
asked = []
store.archive.instances = asked.append
store.cache._fetch = asked.append
assert store.path_of(sys.argv[1]) == path and not asked
print(max(0, peak[0] - start), len(list(path.glob("*/*.dcm"))))
"""
