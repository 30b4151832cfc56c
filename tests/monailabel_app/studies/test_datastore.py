import json
import os
import shutil
import time
from pathlib import Path

import pytest
from watchdog.events import FileCreatedEvent

from monailabel_app.lib.studies.datastore import INDEX, StudyDatastore, is_dicom_by_another_name
from monailabel_app.lib.answering.shelf import Selection, StudyShelf
from radfound.exceptions import NotFoundError, StudyUnreadableError

from ..conftest import CT, PICTURE, SERIES, VOLUME, fill_with_studies, write_dicom_series


@pytest.fixture
def studies(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    fill_with_studies(folder)
    return folder


@pytest.fixture
def label_file(tmp_path):
    path = tmp_path / "a.nrrd"
    path.write_bytes(b"NRRD")
    return path


def soon(is_so, within_s=20):
    deadline = time.monotonic() + within_s
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_so()


def test_files_and_dicom_folders_are_images_and_nothing_else_is(studies):
    (studies / "notes.txt").write_text("no image")
    (studies / "empty folder").mkdir()
    (studies / ".radfound").mkdir()
    assert set(StudyDatastore(str(studies)).list_images()) == {VOLUME, CT, SERIES, PICTURE}


def test_upper_case_suffixes_are_found(studies):
    (studies / f"{PICTURE}.png").rename(studies / "SCAN.PNG")
    assert StudyDatastore(str(studies)).path_of("SCAN").name == "SCAN.PNG"


def test_of_two_images_with_one_id_the_second_by_name_keeps_its_suffix(studies):
    (studies / f"{CT}.png").write_bytes((studies / f"{PICTURE}.png").read_bytes())
    for _ in range(2):  # also after a restart
        datastore = StudyDatastore(str(studies))
        assert datastore.path_of(CT).name == f"{CT}.dcm"
        assert datastore.path_of(f"{CT}.png").name == f"{CT}.png"


def test_images_in_folders_have_their_path_as_id_and_take_labels(studies, label_file):
    (studies / "sub-01" / "anat").mkdir(parents=True)
    shutil.copy(studies / f"{VOLUME}.nii.gz", studies / "sub-01" / "anat" / "t1.nii.gz")
    datastore = StudyDatastore(str(studies))
    assert datastore.path_of("sub-01/anat/t1") == studies / "sub-01" / "anat" / "t1.nii.gz"
    assert datastore.get_image_info("sub-01/anat/t1")["name"] == "t1.nii.gz"
    datastore.save_label("sub-01/anat/t1", str(label_file), "final", {})
    for index in (None, studies / INDEX):  # the list is made anew from what is on the disk
        if index:
            index.unlink()
        datastore = StudyDatastore(str(studies))
        assert datastore.get_labeled_images() == ["sub-01/anat/t1"]
        assert Path(datastore.get_label_uri("sub-01/anat/t1", "final")).read_bytes() == b"NRRD"


def test_an_archive_that_cannot_be_written_keeps_list_and_labels_elsewhere(
    studies, tmp_path, label_file
):
    before = sorted(studies.rglob("*"))
    state = tmp_path / "state"
    for _ in range(2):
        datastore = StudyDatastore(str(studies), state=str(state))
        assert set(datastore.list_images()) == {VOLUME, CT, SERIES, PICTURE}
        assert datastore.path_of(CT) == studies / f"{CT}.dcm"
    datastore.save_label(CT, str(label_file), "final", {})
    assert state in Path(datastore.get_label_uri(CT, "final")).parents
    assert sorted(studies.rglob("*")) == before


@pytest.mark.parametrize("apart", [False, True])
def test_a_study_that_is_moved_into_the_folder_is_noticed(studies, tmp_path, apart):
    state = str(tmp_path / "state") if apart else None
    datastore = StudyDatastore(str(studies), state=state, auto_reload=True)
    try:
        shutil.copy(studies / f"{CT}.dcm", studies / ".part")
        (studies / ".part").rename(studies / "IM0001")
        write_dicom_series(studies / "later")
        assert soon(lambda: {"IM0001", "later"} <= set(datastore.list_images()))
    finally:
        datastore._observer.stop()
        datastore._observer.join()


def test_many_files_that_arrive_together_cost_few_looks(studies, monkeypatch):
    datastore = StudyDatastore(str(studies))
    looks = []
    monkeypatch.setattr(datastore, "refresh", lambda: looks.append(1))
    datastore._looked_s = time.monotonic()
    for number in range(1000):
        datastore._on_any_event(FileCreatedEvent(str(studies / f"IM{number}")))
    datastore._next_look.cancel()
    assert len(looks) <= 1


@pytest.mark.parametrize("name", [INDEX, ".lock", ".radfound/server.log", "labels/final/ct.json"])
def test_what_the_server_writes_itself_is_no_reason_to_look_again(studies, name):
    datastore = StudyDatastore(str(studies))
    datastore._looked_s = 0
    datastore.refresh = pytest.fail
    datastore._on_any_event(FileCreatedEvent(str(studies / name)))


def test_a_name_that_is_no_utf8_is_left_out_and_the_list_is_json(studies):
    os.rename(studies / f"{CT}.dcm", os.fsencode(studies) + b"/\xff.dcm")
    datastore = StudyDatastore(str(studies))
    assert set(datastore.list_images()) == {VOLUME, SERIES, PICTURE}
    json.dumps(datastore.json(), ensure_ascii=False).encode()


def test_a_folder_that_arrives_later_is_found_when_asked_for(studies):
    datastore = StudyDatastore(str(studies))
    write_dicom_series(studies / "1.2.840.7")
    assert datastore.path_of("1.2.840.7") == studies / "1.2.840.7"


def test_dicom_of_any_name_is_known_for_a_download(studies):
    for name in ("IM0001", "a.IMA", "b.dicom"):
        shutil.copy(studies / f"{CT}.dcm", studies / name)
        assert is_dicom_by_another_name(studies / name)
    (studies / "notes").write_text("no image")
    for name in (f"{CT}.dcm", f"{PICTURE}.png", "notes", SERIES):
        assert not is_dicom_by_another_name(studies / name)


def test_ids_survive_a_restart(studies):
    first = set(StudyDatastore(str(studies)).list_images())
    assert set(StudyDatastore(str(studies)).list_images()) == first


def test_a_dataset_without_labels_is_not_found(studies):
    with pytest.raises(NotFoundError):
        StudyDatastore(str(studies)).get_dataset_archive(None)


def read(shelf, *paths):
    return shelf.get(paths, "study", Selection())


def test_a_study_is_read_once(studies):
    shelf, path = StudyShelf(), studies / f"{CT}.dcm"
    assert read(shelf, path) is read(shelf, path)


def test_a_changed_file_is_read_again(studies):
    shelf, path = StudyShelf(), studies / f"{PICTURE}.png"
    before = read(shelf, path)
    path.write_bytes((studies / f"{CT}.dcm").read_bytes())
    assert read(shelf, path).digest != before.digest


def test_a_new_file_in_a_folder_is_seen(studies):
    shelf = StudyShelf()
    before = read(shelf, studies / SERIES)
    for file in (studies / SERIES).iterdir():
        if file.name == "IM1":
            file.unlink()
    assert read(shelf, studies / SERIES).digest != before.digest


def test_the_shelf_keeps_what_fits_and_always_the_newest(studies):
    paths = [studies / f"{VOLUME}.nii.gz", studies / f"{CT}.dcm", studies / f"{PICTURE}.png"]
    shelf = StudyShelf(max_bytes=1)
    first = read(shelf, paths[0])
    assert read(shelf, paths[0]) is first
    read(shelf, paths[1])
    assert read(shelf, paths[0]) is not first


def test_a_failure_is_not_remembered(studies):
    shelf, path = StudyShelf(), studies / "late.png"
    path.write_bytes(b"")
    with pytest.raises(StudyUnreadableError):
        read(shelf, path)
    path.write_bytes((studies / f"{PICTURE}.png").read_bytes())
    assert read(shelf, path).images


def test_a_missing_file_is_named(studies):
    with pytest.raises(StudyUnreadableError, match="gone.png"):
        read(StudyShelf(), studies / "gone.png")
