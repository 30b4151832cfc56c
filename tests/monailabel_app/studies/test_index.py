"""What the folder of studies holds: the index survives, originals are not touched, an id keeps its content."""

import errno
import json
import multiprocessing
import os
import shutil
import threading
import time
from contextlib import suppress

import pytest

from monailabel_app.lib.studies.datastore import StudyDatastore, uploads_path
from monailabel_app.lib.studies.index import ProtectedError, TakenError
from radfound.exceptions import StorageError

from ..conftest import CT, PICTURE, SERIES, VOLUME, fill_with_studies

INDEX = "datastore_v2.json"


@pytest.fixture
def studies(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    fill_with_studies(folder)
    return folder


@pytest.fixture
def file(tmp_path):
    """Make a file of a name and content."""

    def make(name, content=b"a label"):
        (tmp_path / "sent").mkdir(exist_ok=True)
        path = tmp_path / "sent" / name
        path.write_bytes(content)
        return str(path)

    return make


def labelled(studies, file):
    """A datastore with labels, of which one is of corrections."""
    datastore = StudyDatastore(str(studies))
    datastore.save_label(VOLUME, file("x.nrrd"), "final", {"who": "a reader"})
    datastore.save_label(SERIES, file("corrections.json"), "final", {})
    return datastore


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"name": "x", "description": "y", "objects": []}',
        b'{"name": "x", "description": "y", "objects": {"ct": {"image": 7}}}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_index_is_set_aside_said_and_made_anew(studies, file, content, caplog):
    labelled(studies, file)
    (studies / INDEX).write_bytes(content)
    datastore = StudyDatastore(str(studies))
    assert set(datastore.list_images()) == {VOLUME, CT, SERIES, PICTURE}
    assert set(datastore.get_labeled_images()) == {VOLUME, SERIES}
    (aside,) = studies.glob(f"{INDEX}.broken-*")
    assert aside.read_bytes() == content
    assert INDEX in caplog.text and aside.name in caplog.text
    assert set(json.loads((studies / INDEX).read_text())["objects"]) == set(datastore.list_images())


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_cut_index_is_made_anew(studies, file, share):
    labelled(studies, file)
    content = (studies / INDEX).read_bytes()
    (studies / INDEX).write_bytes(content[: int(len(content) * share)])
    assert set(StudyDatastore(str(studies)).get_labeled_images()) == {VOLUME, SERIES}


def test_a_folder_in_the_place_of_the_index_is_set_aside(studies):
    (studies / INDEX).mkdir()
    assert CT in StudyDatastore(str(studies)).list_images()
    assert (studies / INDEX).is_file()


def test_an_index_damaged_under_a_running_server_costs_no_label_info(studies, file):
    datastore = labelled(studies, file)
    (studies / INDEX).write_bytes(b"{")
    datastore.update_image_info(CT, {"seen": True})
    again = StudyDatastore(str(studies))
    assert again.get_label_info(VOLUME, "final")["who"] == "a reader"
    assert again.get_image_info(CT)["seen"]


def test_what_is_not_on_the_disk_is_not_in_the_index(studies, file, tmp_path):
    labelled(studies, file)
    index = json.loads((studies / INDEX).read_text())
    index["images_dir"] = str(tmp_path)
    index["objects"]["../secret"] = {"image": {"ext": ".png"}}
    (tmp_path / "secret.png").touch()
    (studies / INDEX).write_text(json.dumps(index))
    datastore = StudyDatastore(str(studies))
    assert set(datastore.list_images()) == {VOLUME, CT, SERIES, PICTURE}
    assert datastore.path_of(CT).parent == studies


def test_an_index_that_cannot_be_written_stays_whole_and_the_change_is_not_seen(
    studies, file, monkeypatch
):
    datastore = labelled(studies, file)
    before = (studies / INDEX).read_bytes()

    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("radfound.records.durable.os.fsync", no_room)
        with pytest.raises(StorageError, match="disk is not full"):
            datastore.update_label_info(VOLUME, "final", {"who": "nobody"})
        with pytest.raises(StorageError):
            datastore.save_label(CT, file("y.nrrd"), "final", {})
        with pytest.raises(StorageError):
            datastore.add_image("new", file("new.png", b"a picture"), {})
        assert datastore.get_label_info(VOLUME, "final")["who"] == "a reader"
        shutil.copy(studies / f"{PICTURE}.png", studies / "arrived.png")
        assert "arrived" in StudyDatastore(str(studies)).list_images()  # a start needs no room
    assert (studies / INDEX).read_bytes() == before
    assert not list(studies.rglob(".tmp-*"))


class FullDisk:
    """A disk that is full from the n-th step of writing on; `steps` counts those before."""

    def __init__(self, monkeypatch, at):
        self.at, self.steps, self.is_full = at, 0, True
        monkeypatch.setattr("radfound.records.durable.open", self._limited(open), raising=False)
        for name in ("fsync", "replace"):
            monkeypatch.setattr(f"radfound.records.durable.os.{name}", self._limited(getattr(os, name)))
        monkeypatch.setattr("radfound.records.durable.shutil.copyfileobj", self._copy_half)

    def _limited(self, call):
        def limited(*args, **kwargs):
            self._step()
            return call(*args, **kwargs)

        return limited

    def _copy_half(self, source, target, _):
        content = source.read()
        target.write(content[: len(content) // 2])
        self._step()
        target.write(content[len(content) // 2 :])

    def _step(self):
        self.steps += 1
        if self.is_full and self.steps > self.at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_from_any_step_on_stops_no_start_and_loses_nothing(
    tmp_path, file, monkeypatch
):
    picture, label, whole = file("sent.png", b"a picture"), file("x.nrrd"), False
    work = (
        lambda store: store.add_image("sent", picture, {}),
        lambda store: store.save_label("ct", label, "final", {"turn": 1}),
        lambda store: store.update_label_info("ct", "final", {"more": 2}),
        lambda store: store.update_image_info("ct", {"seen": True}),
    )
    kept = (
        lambda store: store.path_of("sent").read_bytes() == b"a picture",
        lambda store: store.get_label_info("ct", "final")["turn"] == 1,
        lambda store: store.get_label_info("ct", "final")["more"] == 2,
        lambda store: store.get_image_info("ct")["seen"],
    )
    for at in range(100):
        studies = tmp_path / str(at)
        studies.mkdir()
        (studies / "ct.dcm").touch()
        datastore, done = StudyDatastore(str(studies)), 0
        with monkeypatch.context() as patch:
            disk = FullDisk(patch, at)
            for each in work:
                try:
                    each(datastore)
                    done += 1
                except StorageError:
                    break
            assert all(each(StudyDatastore(str(studies))) for each in kept[:done])
            disk.is_full = False
            again = StudyDatastore(str(studies))
            assert all(each(again) for each in kept[:done])
            assert not list(studies.rglob(".tmp-*"))
        if whole := done == len(work):
            break
    assert whole and at > 10


def test_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(studies, file):
    label = file("x.nrrd")

    def write(told):
        datastore = StudyDatastore(str(studies))
        for number in range(10**6):
            datastore.save_label(CT, label, "final", {"turn": number})
            datastore.update_image_info(VOLUME, {"turn": number})
            told.send(number)

    for kill in range(6):
        hearing, telling = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=write, args=(telling,))
        process.start()
        telling.close()
        newest = hearing.recv()
        time.sleep(0.013 * kill)
        process.kill()
        process.join()
        with suppress(EOFError):
            while True:
                newest = hearing.recv()
        datastore = StudyDatastore(str(studies))
        assert datastore.get_label_info(CT, "final")["turn"] >= newest
        assert datastore.get_image_info(VOLUME)["turn"] >= newest
        assert set(datastore.list_images()) == {VOLUME, CT, SERIES, PICTURE}
        assert not list(studies.rglob(".tmp-*")) and not list(studies.glob("*.broken-*"))


def test_writers_in_threads_and_two_servers_lose_no_label_info(studies, file):
    servers = [StudyDatastore(str(studies)), StudyDatastore(str(studies))]
    label = file("x.nrrd")

    def write(server, number):
        for turn in range(5):
            server.update_image_info(CT, {f"{number}-{turn}": turn})
            server.save_label(VOLUME, label, f"tag{number}", {"turn": turn})

    threads = [threading.Thread(target=write, args=(servers[n % 2], n)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = StudyDatastore(str(studies))
    written = {f"{number}-{turn}" for number in range(6) for turn in range(5)}
    assert written <= set(found.get_image_info(CT))
    assert {f"tag{number}" for number in range(6)} <= set(found.get_labels_by_image_id(VOLUME))
    assert all(found.get_label_info(VOLUME, f"tag{n}")["turn"] == 4 for n in range(6))


def test_readers_never_find_the_list_half_filled(studies, file):
    datastore, is_done, missed = labelled(studies, file), threading.Event(), []

    def look():
        while not is_done.is_set():
            if set(datastore.list_images()) != {VOLUME, CT, SERIES, PICTURE}:
                missed.append(1)

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(20):
        datastore.refresh()
    is_done.set()
    reader.join()
    assert not missed


def test_what_a_killed_server_left_half_written_is_removed_at_the_start(studies, file):
    labelled(studies, file)
    uploads_path(studies).mkdir(parents=True)
    for folder in (studies, studies / "labels" / "final", uploads_path(studies)):
        (folder / ".tmp-0123").touch()
    StudyDatastore(str(studies))
    assert not list(studies.rglob(".tmp-*"))


# Originals ------------------------------------------------------------------------------------


@pytest.fixture
def archive(studies, tmp_path):
    """A department's archive, linked into the folder of studies."""
    folder = tmp_path / "archive"
    folder.mkdir()
    shutil.move(studies / SERIES, folder / SERIES)
    shutil.move(studies / f"{CT}.dcm", folder / f"{CT}.dcm")
    (studies / SERIES).symlink_to(folder / SERIES)
    (studies / f"{CT}.dcm").symlink_to(folder / f"{CT}.dcm")
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("image", [VOLUME, CT, SERIES, PICTURE])
def test_originals_are_not_removed_nor_written_over_through_links_or_not(
    studies, archive, file, image
):
    datastore = StudyDatastore(str(studies))
    before = contents(archive) | contents(studies)
    with pytest.raises(ProtectedError, match="not an upload"):
        datastore.remove_image(image)
    for suffix in (".dcm", ".nii.gz", ".png"):
        with pytest.raises(TakenError, match="another name"):
            datastore.add_image(image, file(f"x{suffix}", b"another picture"), {})
    assert before.items() <= (contents(archive) | contents(studies)).items()
    assert (studies / SERIES).is_symlink() and image in datastore.list_images()


def test_an_upload_lies_in_the_servers_own_folder_and_is_served_like_the_rest(studies, file):
    datastore = StudyDatastore(str(studies))
    before = {path.name for path in studies.iterdir()} | {".radfound"}
    picture = (studies / f"{PICTURE}.png").read_bytes()
    datastore.add_image("sent", file("sent.png", picture), {"user": "a reader"})
    assert {path.name for path in studies.iterdir()} == before
    for each in (datastore, StudyDatastore(str(studies))):
        assert each.path_of("sent") == uploads_path(studies) / "sent.png"
        assert each.get_image_info("sent")["user"] == "a reader"
        each.save_label("sent", file("x.nrrd"), "final", {})
        assert each.datalist()[0]["image"] == str(uploads_path(studies) / "sent.png")
    datastore.remove_image("sent")
    assert "sent" not in StudyDatastore(str(studies)).list_images()
    assert not (uploads_path(studies) / "sent.png").exists()
    assert not (studies / "labels" / "final" / "sent.nrrd").exists()


def test_an_id_never_changes_its_content(studies, file):
    datastore = StudyDatastore(str(studies))
    for _ in range(2):  # a client may send twice
        assert datastore.add_image("sent", file("sent.png", b"one"), {}) == "sent"
    for suffix in (".png", ".dcm"):
        with pytest.raises(TakenError):
            datastore.add_image("sent", file(f"sent{suffix}", b"two"), {})
    assert datastore.path_of("sent").read_bytes() == b"one"
    (studies / "sent.dcm").write_bytes(b"two")  # a file that arrives later does not take it over
    (studies / "sent.png").write_bytes(b"two")
    for each in (datastore, StudyDatastore(str(studies))):
        each.refresh()
        assert each.path_of("sent").read_bytes() == b"one"
    (studies / INDEX).unlink()
    assert StudyDatastore(str(studies)).path_of("sent").read_bytes() == b"one"


def test_the_id_of_a_removed_upload_stands_for_no_other_content(studies, file):
    datastore = StudyDatastore(str(studies))
    datastore.add_image("sent", file("sent.png", b"one"), {})
    datastore.remove_image("sent")
    with pytest.raises(TakenError):
        StudyDatastore(str(studies)).add_image("sent", file("sent.png", b"two"), {})
    datastore.add_image("sent", file("sent.png", b"one"), {})
    assert datastore.path_of("sent").read_bytes() == b"one"


def test_an_original_that_arrived_unseen_is_not_hidden_by_an_upload(studies, file):
    datastore = StudyDatastore(str(studies))
    shutil.copy(studies / f"{PICTURE}.png", studies / "arrived.png")
    with pytest.raises(TakenError):
        datastore.add_image("arrived", file("arrived.png", b"another"), {})


def test_labels_that_are_links_are_replaced_and_their_targets_stay(studies, file, tmp_path):
    target = tmp_path / "segmentation.nrrd"
    target.write_bytes(b"of the department")
    (studies / "labels" / "final").mkdir(parents=True)
    for image in (CT, VOLUME):
        (studies / "labels" / "final" / f"{image}.nrrd").symlink_to(target)
    datastore = StudyDatastore(str(studies))
    datastore.save_label(CT, file("x.nrrd"), "final", {})
    datastore.remove_label(VOLUME, "final")
    assert target.read_bytes() == b"of the department"
    assert datastore.get_labeled_images() == [CT]
