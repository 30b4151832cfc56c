"""A thousand studies, and an archive that is killed again and again."""

import concurrent.futures
import random
import threading
import time

import pydicom
import pytest

from .conftest import serving
from .orthanc import Orthanc
from .synthetic import CR, Patient, series_uid, study_uid, uid, write_views

pytestmark = [pytest.mark.pacs, pytest.mark.slow]

_STUDIES = 1000


def fill(archive, folder, studies):
    """One radiograph each, made from one file."""
    write_views(folder, "cr", CR, "CR", [("PA", "")], patient=Patient(), description="Chest")
    header = pydicom.dcmread(next(folder.rglob("*.dcm")))
    for number in range(studies):
        header.StudyInstanceUID = study_uid(number)
        header.SeriesInstanceUID = series_uid(number, "PA")
        header.SOPInstanceUID = uid("instance", number)
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        header.PatientID = f"PID-77{number:05d}"
        header.save_as(folder / "one.dcm")
        archive.add((folder / "one.dcm").read_bytes())


def seconds_of(call):
    began = time.monotonic()
    reply = call()
    assert reply.status_code == 200, reply.text
    return time.monotonic() - began


def test_a_thousand_studies_are_listed_and_chosen_within_a_second(tools, tmp_path):
    with Orthanc(tmp_path / "orthanc") as archive:
        fill(archive, tmp_path / "files", _STUDIES)
        with serving(archive, tmp_path / "server") as server:
            calls = {
                "list": lambda: server.get("/datastore/", params={"output": "all"}),
                "next": lambda: server.post("/activelearning/hybrid", json={"client_id": "a"}),
                "info": lambda: server.get("/info/"),
            }
            for name, call in calls.items():
                first = seconds_of(call)
                second = seconds_of(call)
                print(f"{name}: first {first:.2f} s, then {second:.2f} s")
                assert second < 1, name
            assert server.get("/info/").json()["datastore"]["total"] == _STUDIES


def test_an_archive_that_is_killed_twenty_times_loses_nothing(tools, tmp_path, correction):
    studies = 12
    with Orthanc(tmp_path / "orthanc") as archive:
        fill(archive, tmp_path / "files", studies)
        conf = (("pacs_write", "draft"), ("pacs_timeout_s", 5))
        with serving(archive, tmp_path / "server", *conf) as server:
            done = threading.Event()
            statuses: list[int] = []
            corrected: list[str] = []
            sent: list[str] = []

            def read(seed):
                chance = random.Random(seed)
                while not done.is_set():
                    study = study_uid(chance.randrange(studies))
                    reply = server.ask(study, None, "radfound_report", max_new_tokens=4)
                    statuses.append(reply.status_code)
                    if not reply.ok:
                        time.sleep(0.2)
                        continue
                    answer = reply.json()
                    row = correction(
                        study, task="report", question=None, model_text="draft",
                        text="Normal.", answer_id=answer["id"], model=answer["model"],
                    )  # fmt: skip
                    kept = server.post("/radfound/corrections", json=row)
                    statuses.append(kept.status_code)
                    if kept.ok:
                        corrected.append(row["id"])
                        reply = server.post(
                            "/radfound/pacs/send", json={"correction_id": row["id"]}
                        )
                        statuses.append(reply.status_code)
                        if reply.ok:
                            sent.append(reply.json()["sop_instance_uid"])

            with concurrent.futures.ThreadPoolExecutor(8) as readers:
                futures = [readers.submit(read, seed) for seed in range(8)]
                for _ in range(20):
                    time.sleep(1.5)
                    archive.stop(kill=True)
                    time.sleep(0.5)
                    archive.start()
                done.set()
                for future in futures:
                    future.result()
            assert 500 not in statuses
            kept = {row["id"] for row in server.get("/radfound/corrections").json()["corrections"]}
            assert kept.issuperset(corrected) and corrected

            def waiting():
                return server.get("/radfound/health").json()["pacs"]["waiting"]

            deadline = time.monotonic() + 240
            while waiting():
                assert time.monotonic() < deadline
                time.sleep(1)
            stored = {
                report.SOPInstanceUID
                for number in range(studies)
                for report in archive.reports(study_uid(number))
            }
            print(
                f"{len(statuses)} requests, {len(corrected)} corrections, {len(sent)} reports sent"
            )
            assert stored.issuperset(sent) and sent
