"""The test files that nibabel and nilearn ship: right, or refused with the true reason."""

from pathlib import Path

import nibabel
import nilearn
import numpy as np
import pytest

from radfound.exceptions import RadFoundError, StudyAmbiguousError
from radfound.reading import read_study

NIBABEL = Path(nibabel.__file__).parent / "tests" / "data"
NILEARN = Path(nilearn.__file__).parent / "datasets" / "data"
# What the message about a file says, by the end of its name; nothing for those that are read.
REASONS = {
    "nifti1.hdr": "the file with the voxels is not there; expected 'nifti1.img'",
    "nifti2.hdr": "the file with the voxels is not there; expected 'nifti2.img'",
    "analyze.hdr": "an Analyze 7.5 header, which does not say which side is left",
    "resampled_anat_moved.nii": "153 of 1,071 voxels are NaN or infinite",
    ".dconn.nii": "a CIFTI file, whose values belong to surfaces and tables",
    ".PAR": "it holds a Philips PAR header",
    ".REC": "it holds data of no known image format",
    ".HEAD": "it holds an AFNI header",
    ".BRIK": "it holds data of no known image format",
    ".BRIK.gz": "it holds gzip data that are no NIfTI",
    ".mnc": "it holds a MINC or another",
    ".mgz": "it holds a FreeSurfer MGH, packed by gzip",
    ".gii.gz": "it holds a GIFTI surface, packed by gzip",
    ".trk": "it holds streamlines",
    ".tck": "it holds streamlines",
    "no_magic_number.tck": "it holds data of no known image format",
    ".v": "it holds an ECAT",
    ".dat": "it holds data of no known image format",
    ".m": "it holds text",
    ".py": "it holds text",
    "__init__.py": "the file is empty",
    "0.dcm": "48 slices do not divide 256 x 256 pixels into equal tiles",
    "1.dcm": "48 slices do not divide 256 x 256 pixels into equal tiles",
    ".rst": "it holds text",
    ".csv": "it holds text",
    ".txt": "it holds text",
    ".gitignore": "it holds text",
}


def shipped():
    found = [*NIBABEL.iterdir(), *NILEARN.rglob("*")]
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


def reason_for(path):
    endings = [ending for ending in REASONS if path.name.endswith(ending)]
    return REASONS[max(endings, key=len)] if endings else None


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.name)
def test_shipped_file_is_read_right_or_refused_with_the_true_reason(path):
    reason = reason_for(path)
    if reason:
        with pytest.raises(RadFoundError) as info:
            read_study(path)
        assert reason in str(info.value)
    elif ".nii" in path.name:
        assert_agrees_with_nibabel(path)
    else:
        assert path.suffix == ".dcm"
        assert len(read_study(path).images) == 1


def assert_agrees_with_nibabel(path):
    reference = nibabel.load(path)
    volumes = np.asanyarray(reference.dataobj).reshape(*reference.shape[:3], -1)
    if volumes.shape[-1] > 1:
        with pytest.raises(StudyAmbiguousError, match=f"holds {volumes.shape[-1]} volumes"):
            read_study(path)
    for index in {0, volumes.shape[-1] - 1}:
        (image,) = read_study(path, volume=index).images
        np.testing.assert_allclose(
            image.voxels.transpose(2, 1, 0), volumes[..., index], rtol=1e-6, atol=1e-6
        )
        np.testing.assert_allclose(image.affine, reference.affine, atol=1e-4)


def test_counts_of_shipped_files_are_those_of_the_docs():
    reasons = [reason_for(path) for path in shipped() if path.is_relative_to(NIBABEL)]
    assert (len(reasons), sum(reason is None for reason in reasons)) == (88, 6)
