"""Synthetic DICOM studies: written afresh for each test, with names that must appear in no log."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT, MG, CR = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.1.2",
    "1.2.840.10008.5.1.4.1.1.1",
)
FAMILY_NAME, GIVEN_NAME = "Zwetschgenstein", "Quendoline"


@dataclass(frozen=True)
class Patient:
    """Whose study it is."""

    id: str = "PID-77123"
    name: str = f"{FAMILY_NAME}^{GIVEN_NAME}"
    accession: str = "ACC-55810"


def uid(*key) -> str:
    """The same key always gives the same UID."""
    return generate_uid(entropy_srcs=["radfound-tests", *map(str, key)])


def study_uid(study: str) -> str:
    return uid("study", study)


def series_uid(study: str, series: str) -> str:
    return uid("series", study, series)


def _header(sop_class, modality, study, series, number, patient, series_number, date, description):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = uid("instance", study, series, number)
    header = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    header.is_little_endian, header.is_implicit_VR = True, False
    header.SpecificCharacterSet = "ISO_IR 192"
    header.SOPClassUID, header.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    header.StudyInstanceUID, header.SeriesInstanceUID = study_uid(study), series_uid(study, series)
    header.PatientID, header.PatientName = patient.id, patient.name
    header.PatientBirthDate, header.PatientSex = "19600101", "F"
    header.AccessionNumber, header.StudyID = patient.accession, "1"
    header.StudyDate = header.SeriesDate = header.ContentDate = date
    header.StudyTime = header.SeriesTime = header.ContentTime = "101500"
    header.ReferringPhysicianName = "Ref^Doc"
    header.Modality, header.SeriesNumber, header.InstanceNumber = modality, series_number, number
    header.StudyDescription, header.SeriesDescription = description, series
    header.Manufacturer = "Synthetic"
    return header


def _put_pixels(header, pixels):
    header.Rows, header.Columns = pixels.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = (
        16, 12, 11, 0,
    )  # fmt: skip
    header.PixelData = np.clip(pixels, 0, 4095).astype("<u2").tobytes()
    header["PixelData"].VR = "OW"


def _save(folder: Path, header) -> Path:
    path = folder / header.StudyInstanceUID / header.SeriesInstanceUID
    path.mkdir(parents=True, exist_ok=True)
    path /= f"{header.InstanceNumber:04d}.dcm"
    header.save_as(path, write_like_original=False)
    return path


def write_ct_series(
    folder, study, series, slices, *, number=2, patient=Patient(), date="20260105", size=48,
    image_type=("ORIGINAL", "PRIMARY", "AXIAL"), description="CT chest", modality="CT",
):  # fmt: skip
    """A stack of axial slices with a body and two lungs."""
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    body = (columns / 0.42) ** 2 + (rows / 0.32) ** 2 < 1
    lungs = (np.abs(columns) - 0.18) ** 2 / 0.13**2 + rows**2 / 0.2**2 < 1
    noise = np.random.default_rng(abs(hash((study, series))) % 1000)
    for index in range(slices):
        header = _header(CT, modality, study, series, index + 1, patient, number, date, description)
        header.FrameOfReferenceUID, header.PositionReferenceIndicator = uid("frame", study), ""
        header.ImageType, header.BodyPartExamined = list(image_type), "CHEST"
        header.SliceThickness, header.PixelSpacing = 5.0, [2.5, 2.5]
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.ImagePositionPatient = [-160, -160, 5.0 * index]
        header.KVP, header.AcquisitionNumber, header.PatientPosition = "120", 1, "HFS"
        header.RescaleIntercept, header.RescaleSlope, header.RescaleType = -1024, 1, "HU"
        hounsfield = np.where(lungs, -850, np.where(body, 40, -1000)) + noise.normal(
            0, 9, (size,) * 2
        )
        _put_pixels(header, hounsfield + 1024)
        _save(folder, header)


def write_views(
    folder, study, sop_class, modality, views, *, patient, description, date="20260106"
):
    """One series for each view of a radiography or mammography exam."""
    rows, columns = np.mgrid[:64, :48]
    for number, (view, laterality) in enumerate(views, start=1):
        header = _header(
            sop_class, modality, study, f"{laterality} {view}".strip(), 1, patient, number, date,
            description,
        )  # fmt: skip
        header.ViewPosition, header.ImageType = view, ["ORIGINAL", "PRIMARY"]
        header.BodyPartExamined = "BREAST" if modality == "MG" else "CHEST"
        header.ImagerPixelSpacing, header.PatientOrientation = [0.5, 0.5], ["A", "F"]
        if laterality:
            header.ImageLaterality = laterality
        header.BurnedInAnnotation, header.LossyImageCompression = "NO", "00"
        pixels = 1800.0 * ((columns / 36) ** 2 + ((rows - 32) / 28) ** 2 < 1) + 40 * number
        _put_pixels(header, pixels)
        _save(folder, header)


def write_ct_study(folder):
    """Two series and a localizer."""
    write_ct_series(folder, "ct", "standard", 6, number=2)
    write_ct_series(folder, "ct", "lung", 8, number=3)
    write_ct_series(
        folder, "ct", "scout", 1, number=1, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")
    )


def write_prior(folder):
    write_ct_series(folder, "ct-prior", "standard", 6, date="20250310")


def write_mammogram(folder):
    views = [("CC", "R"), ("CC", "L"), ("MLO", "R"), ("MLO", "L")]
    patient = Patient("PID-77124", f"Mirabellenbaum^{GIVEN_NAME}", "ACC-55811")
    write_views(folder, "mg", MG, "MG", views, patient=patient, description="Screening mammography")


def write_radiograph(folder):
    patient = Patient("PID-77125", "Quittenfeld^Odo", "ACC-55812")
    write_views(
        folder, "cr", CR, "CR", [("PA", ""), ("LL", "")], patient=patient, description="Chest"
    )


def write_deidentified(folder):
    """A study without birth date, sex, accession number, study id, time and referring physician."""
    write_ct_series(folder, "deid", "axial", 4, patient=Patient("ANON-1", "Anonymous", ""))
    for path in (folder / study_uid("deid")).rglob("*.dcm"):
        header = pydicom.dcmread(path)
        for keyword in (
            "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyTime",
            "ReferringPhysicianName",
        ):  # fmt: skip
            delattr(header, keyword)
        header.save_as(path)


def write_odd_objects(folder):
    """Real files of pydicom: a JPEG 2000 CT, a plan, a waveform, a report."""
    for name in ("JPEG2000.dcm", "rtplan.dcm", "waveform_ecg.dcm", "test-SR.dcm"):
        dataset = pydicom.dcmread(get_testdata_file(name, download=False))
        dataset.save_as(folder / name, write_like_original=False)


def write_all(folder):
    for write in (
        write_ct_study, write_prior, write_mammogram, write_radiograph, write_deidentified,
        write_odd_objects,
    ):  # fmt: skip
        write(folder)
