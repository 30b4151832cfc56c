from collections import Counter, defaultdict

import pytest

from radfound.fields.catalogue import FIELDS
from training.fields.samples import kit_samples


@pytest.fixture(scope="module")
def samples(kit):
    return kit_samples(kit)


def test_no_patient_of_a_source_is_in_two_splits(samples):
    splits = defaultdict(set)
    for sample in samples:
        # NIH's thumbnails and NIH's films with findings share their patients.
        splits[sample.set.replace("nih_cxr", "nih"), sample.patient].add(sample.split)
    divided = [key for key, found in splits.items() if len(found) > 1]
    known = [key for key in divided if key[0] in ("nih", "medpix", "kermany_pediatric_cxr", "mias")]
    assert known == []


def test_every_label_but_those_of_other_planes_is_a_class_of_its_field(samples):
    odd = Counter(
        (name, value)
        for sample in samples
        for name, value in sample.labels.items()
        if name in FIELDS and name != "plane" and value not in FIELDS[name].classes
    )
    assert not odd


def test_the_files_exist_and_the_sets_are_as_large_as_the_kit_says(samples):
    assert all(sample.file.is_file() for sample in samples)
    sizes = Counter(sample.set for sample in samples)
    assert (sizes["nih_cxr"], sizes["kermany_pediatric_cxr"], sizes["busi"]) == (993, 2550, 663)


def test_a_medpix_figure_has_its_weighting_or_contrast_and_its_footer_cut(samples):
    figures = [sample for sample in samples if sample.set == "medpix"]
    assert all(sample.footer for sample in figures)
    assert all(s.labels["modality"] == "MRI" for s in figures if "weighting" in s.labels)
    assert all(s.labels["modality"] == "CT" for s in figures if "contrast" in s.labels)
