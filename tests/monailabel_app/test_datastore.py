import pytest

from monailabel_app.lib.datastore import StudyDatastore
from monailabel_app.lib.shelf import Selection, StudyShelf
from radfound.exceptions import NotFoundError, StudyUnreadableError

from .conftest import CT, PICTURE, SERIES, VOLUME, fill_with_studies, write_dicom_series


@pytest.fixture
def studies(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    fill_with_studies(folder)
    return folder


def test_files_and_dicom_folders_are_images_and_nothing_else_is(studies):
    (studies / "notes.txt").write_text("no image")
    (studies / "empty folder").mkdir()
    (studies / ".radfound").mkdir()
    assert set(StudyDatastore(str(studies)).list_images()) == {VOLUME, CT, SERIES, PICTURE}


def test_upper_case_suffixes_are_found(studies):
    (studies / f"{PICTURE}.png").rename(studies / "SCAN.PNG")
    assert StudyDatastore(str(studies)).path_of("SCAN").name == "SCAN.PNG"


def test_of_two_images_with_one_id_the_first_by_name_counts(studies):
    (studies / f"{CT}.png").write_bytes((studies / f"{PICTURE}.png").read_bytes())
    assert StudyDatastore(str(studies)).path_of(CT).name == f"{CT}.dcm"


def test_a_folder_that_arrives_later_is_found_when_asked_for(studies):
    datastore = StudyDatastore(str(studies))
    write_dicom_series(studies / "1.2.840.7")
    assert datastore.path_of("1.2.840.7") == studies / "1.2.840.7"


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
