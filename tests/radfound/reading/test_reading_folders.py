"""What in a folder is a study, and that one bad file keeps no other from being read."""

import os
import zipfile

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from radfound.exceptions import (
    GeometryError,
    RadFoundError,
    ReaderFailedError,
    StudyTooLargeError,
    StudyUnreadableError,
)
from radfound.reading import listing, read_study
from radfound.reading.listing import StudyFolder

from ..miniature import dicom_dataset, ramp, refusal, voxels_of, write_dicom, write_series
from .test_reading_bad_input import save_nifti, write_all_formats


def strip_preamble(path):
    path.write_bytes(path.read_bytes()[132:])


def write_deflated(path, pixels, **tags):
    dataset = dicom_dataset(pixels, **tags)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, write_like_original=False)
    return path


def write_study(folder, uid, **tags):
    return write_series(folder, ramp(2, 4, 4), StudyInstanceUID=uid, SeriesInstanceUID=uid, **tags)


def write_detached(folder):
    (folder / "h.nhdr").write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nendian: little\nencoding: raw\ndata file: h.raw\n"
    )
    # Voxels whose first bytes look like the first element of a DICOM file.
    (folder / "h.raw").write_bytes(np.array([8, 5, 10, 0] * 16, np.int16).tobytes())
    (folder / "m.mhd").write_text(
        "NDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = m.zraw\n"
    )
    (folder / "m.zraw").write_bytes(bytes(128))


# The list


def test_the_list_holds_what_the_reader_reads_and_nothing_else(tmp_path):
    write_all_formats(tmp_path)
    write_detached(tmp_path)
    for name in ("j.dicom", "k.IMA", "IM0001", "1.2.840.7", "L.DCM"):
        write_dicom(tmp_path / name, ramp(4, 4))
    strip_preamble(write_dicom(tmp_path / "bare", ramp(4, 4)))
    write_series(tmp_path / "series", ramp(3, 4, 4))
    write_series(tmp_path / "export" / "DICOM" / "PA1" / "ST1" / "SE1", ramp(3, 4, 4))
    for file in write_series(tmp_path / "no preamble", ramp(3, 4, 4)).iterdir():
        strip_preamble(file)
        file.rename(file.with_suffix(""))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(tmp_path / "j.dicom", "j.dcm")
    for name in ("._a.nii", ".hidden.nii", "notes.txt", "empty", "DICOMDIR", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7" if name[0] == "." else name.encode()[:-5])
    (tmp_path / "nothing here").mkdir()
    readable = []
    for path in tmp_path.iterdir():
        try:
            read_study(path)
            readable.append(path.name)
        except RadFoundError:
            pass
    assert StudyFolder(tmp_path).studies() == sorted(
        readable, key=lambda name: ((tmp_path / name).is_dir(), name)
    )


def test_images_in_folders_are_listed_by_their_path(tmp_path):
    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    save_nifti(tmp_path / "sub-01" / "anat" / "t1.nii.gz", ramp(2, 2, 2))
    (tmp_path / "sub-01" / "anat" / "t1.json").write_text("{}")
    (tmp_path / "sub-01" / "anat" / "scan").write_bytes(
        save_nifti(tmp_path / "scan.nii", ramp(2, 2, 2)).read_bytes()
    )
    assert StudyFolder(tmp_path).studies() == [
        "scan.nii",
        "sub-01/anat/scan",
        "sub-01/anat/t1.nii.gz",
    ]


def test_series_of_one_dicom_study_are_one_study_and_those_of_several_are_several(tmp_path):
    write_series(tmp_path / "exam" / "a", ramp(2, 4, 4), SeriesInstanceUID="1.1")
    write_series(tmp_path / "exam" / "b", ramp(2, 4, 4), SeriesInstanceUID="1.2")
    write_study(tmp_path / "patient" / "before" / "s1", "2.1")
    write_study(tmp_path / "patient" / "after", "2.2")
    assert StudyFolder(tmp_path).studies() == ["exam", "patient/after", "patient/before"]


def test_what_was_listed_before_stays_what_it_was(tmp_path):
    write_study(tmp_path / "patient" / "a", "2.1")
    known = StudyFolder(tmp_path).studies()
    write_study(tmp_path / "patient" / "b", "2.2")
    assert StudyFolder(tmp_path).studies(known) == known == ["patient"]


def test_volumes_beside_dicom_are_listed_and_logos_are_not(tmp_path):
    write_series(tmp_path / "ct", ramp(2, 4, 4))
    save_nifti(tmp_path / "ct" / "mask.nii", ramp(2, 2, 2))
    Image.new("L", (4, 4)).save(tmp_path / "ct" / "logo.png")
    assert StudyFolder(tmp_path).studies() == ["ct", "ct/mask.nii"]


def test_a_broken_file_is_listed_by_its_name_so_that_somebody_is_told(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"not an image")
    assert StudyFolder(tmp_path).studies() == ["a.nii.gz"]


def test_a_name_that_is_no_utf8_is_left_out_with_a_warning_that_does_not_hold_it(tmp_path, caplog):
    save_nifti(tmp_path / "a.nii", ramp(2, 2, 2))
    os.rename(tmp_path / "a.nii", os.fsencode(tmp_path) + b"/Erika\xff.nii")
    os.mkdir(os.fsencode(tmp_path) + b"/\xfe")
    folder = StudyFolder(tmp_path)
    assert folder.studies() == [] and folder.studies() == []
    assert caplog.text.count("2 files or folders are left out") == 1
    assert "Erika" not in caplog.text


def test_a_file_in_a_folder_whose_name_is_no_utf8_is_named_in_an_error_that_json_carries(tmp_path):
    path = os.fsencode(write_series(tmp_path / "s", ramp(2, 4, 4))) + b"/\xff.dcm"
    with open(path, "wb") as file:
        file.write(bytes(128) + b"DICM")
    with pytest.raises(RadFoundError) as info:
        read_study(tmp_path / "s")
    str(info.value).encode()


def test_a_link_to_a_folder_is_followed_in_the_root_and_nowhere_else(tmp_path):
    write_study(tmp_path / "elsewhere" / "a", "1.1")
    served = tmp_path / "served"
    served.mkdir()
    (served / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "a" / "round").symlink_to(tmp_path / "elsewhere")
    assert StudyFolder(served).studies() == ["linked"]


def test_a_file_is_opened_once_however_often_the_list_is_asked_for(tmp_path, monkeypatch):
    write_dicom(tmp_path / "IM0001", ramp(4, 4))
    (tmp_path / "notes").write_text("no image")
    opened = []
    kind_of = listing.kind_of
    monkeypatch.setattr(listing, "kind_of", lambda source: opened.append(source) or kind_of(source))
    folder = StudyFolder(tmp_path)
    assert folder.studies() == folder.studies() == ["IM0001"]
    assert len(opened) == 2
    write_dicom(tmp_path / "notes", ramp(4, 4))
    assert folder.studies() == ["IM0001", "notes"]


def test_one_look_opens_and_lists_no_more_than_it_may(tmp_path, monkeypatch, caplog):
    for number in range(9):
        write_dicom(tmp_path / f"IM{number}", ramp(1, 1))
    monkeypatch.setattr(listing, "MAX_LOOKED_INTO", 4)
    folder = StudyFolder(tmp_path)
    assert [len(folder.studies()) for _ in range(4)] == [4, 8, 9, 9]
    monkeypatch.setattr(listing, "MAX_LISTED", 5)
    assert len(StudyFolder(tmp_path).studies()) == 4
    assert "serve a part of it" in caplog.text


# The reader


def write_strangers(folder, kind):
    """A file beside a series that cannot be read, or is of another series."""
    path = write_dicom(folder / "x.dcm", ramp(4, 4), SeriesInstanceUID="9.9", SeriesNumber=9)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif kind == "empty":
        path.write_bytes(bytes(128) + b"DICM")
    elif kind == "huge":
        write_dicom(path, ramp(4, 4), SeriesInstanceUID="9.9", NumberOfFrames=2**31 - 1)
    elif kind == "odd":
        write_dicom(path, ramp(4, 4), SeriesInstanceUID="9.9", PixelSpacing=[1.0])
    elif kind == "deflated":
        write_deflated(path, ramp(4, 4), SeriesInstanceUID="9.9")


@pytest.mark.parametrize("kind", ["cut", "empty", "huge", "odd", "deflated"])
def test_a_chosen_series_is_read_whatever_lies_beside_it(tmp_path, kind):
    write_series(tmp_path, ramp(3, 4, 4), SeriesNumber=1)
    write_strangers(tmp_path, kind)
    assert np.array_equal(voxels_of(tmp_path, series="1"), ramp(3, 4, 4))


def test_a_file_that_cannot_be_read_is_named_where_no_series_was_chosen(tmp_path):
    write_series(tmp_path, ramp(3, 4, 4), SeriesNumber=1)
    write_strangers(tmp_path, "cut")
    assert refusal(StudyUnreadableError, tmp_path).startswith("x.dcm: ")


def test_a_chosen_series_is_not_read_without_one_of_its_own_files(tmp_path):
    write_series(tmp_path, ramp(3, 4, 4), SeriesNumber=1)
    write_dicom(tmp_path / "x.dcm", ramp(4, 4), SeriesNumber=1, PixelSpacing=[1.0])
    assert refusal(GeometryError, tmp_path, series="1").startswith("x.dcm: ")


def test_a_gap_in_a_chosen_series_names_the_file_that_may_have_filled_it(tmp_path):
    write_series(tmp_path, ramp(5, 4, 4), SeriesNumber=1)
    (middle,) = (
        file for file in tmp_path.iterdir() if pydicom.dcmread(file).ImagePositionPatient[2] == 2
    )
    middle.write_bytes(middle.read_bytes()[:300])
    assert f"{middle.name} cannot be read and may be" in refusal(
        GeometryError, tmp_path, series="1"
    )


def test_an_archive_in_an_archive_is_called_that(tmp_path):
    for name, content in (("inner.zip", tmp_path / "a.txt"), ("outer.zip", tmp_path / "inner.zip")):
        (tmp_path / "a.txt").write_text("a")
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.write(content, content.name)
    message = refusal(StudyUnreadableError, tmp_path / "outer.zip")
    assert message.startswith("outer.zip: holds no image but another archive, inner.zip;")


@pytest.mark.parametrize("error", [KeyError("Muster^Erika"), RecursionError(), AssertionError()])
def test_no_other_exception_leaves_a_reader(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("radfound.reading.volumes.nifti.read_nifti", fail)
    path = save_nifti(tmp_path / "a.nii", ramp(2, 2, 2))
    assert type(error).__name__ in refusal(ReaderFailedError, path)


def test_a_study_larger_than_the_memory_is_called_that(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("radfound.reading.volumes.nifti.read_nifti", fail)
    path = save_nifti(tmp_path / "a.nii", ramp(2, 2, 2))
    assert "memory" in refusal(StudyTooLargeError, path)
