import json

import numpy as np
import pytest

from radfound.datasets.metadata import METADATA_QUESTIONS
from radfound.exceptions import DatasetError
from radfound.fields.values import FieldAnswer, Reading
from training.fields.samples import Sample
from training.teaching import fielded, heads, readers, wording
from training.teaching.wards import divided, open_ward

WIDTH = 24


@pytest.fixture
def cache(tmp_path):
    """Wards of 320 studies of 160 patients: the features tell the answer, the model always says AP."""
    chance = np.random.default_rng(0)
    patients = np.repeat(np.arange(160), 2).astype(str)
    is_pa = np.repeat(chance.integers(0, 2, 160), 2)
    features = chance.normal(size=(320, WIDTH)) * 0.3
    features[:, :8] += np.where(is_pa, 0.5, -0.5)[:, None]
    common = {
        "digests": np.array([f"d{n}" for n in range(320)]),
        "patients": patients,
        "features": features,
    }
    np.savez(
        tmp_path / "projection.npz",
        right=np.where(is_pa, "PA", "AP"),
        question=np.array("Is this a PA or an AP film?"),
        fields=np.full(320, "{}"),
        **common,
        **{"base Is this a PA or an AP film?": np.full(320, "AP")},
    )
    names = {
        "modality": np.where(is_pa, "CT", "MRI"),
        "plane": np.where(np.arange(320) % 3, "axial", "coronal"),
        "region": np.where(np.arange(320) % 5, "head", "thorax"),
    }
    right = [
        f"{m} of the {r}, {p}"
        for m, p, r in zip(names["modality"], names["plane"], names["region"], strict=True)
    ]
    np.savez(
        tmp_path / "house-style.npz",
        right=np.array(right),
        question=np.array(METADATA_QUESTIONS["modality"][0]),
        fields=np.array(
            [
                json.dumps(dict(zip(names, values, strict=True)))
                for values in zip(*names.values(), strict=True)
            ]
        ),
        **common,
        **{f"base {words[0]}": names[name] for name, words in METADATA_QUESTIONS.items()},
    )
    is_right = chance.random(320) < 0.9
    pa = np.where(is_pa == is_right, 0.8, 0.2)
    np.savez(
        tmp_path / "projection-field.npz",
        right=np.where(is_pa, "PA", "AP"),
        question=np.array("Is this a PA or an AP film?"),
        fields=np.full(320, "{}"),
        chances=np.array([json.dumps({"projection": {"PA": p, "AP": 1 - p}}) for p in pa]),
        **common | {"features": chance.normal(size=(320, WIDTH))},
        **{"base Is this a PA or an AP film?": np.where(pa > 0.5, "PA", "AP")},
    )
    return tmp_path


def table(capsys):
    lines = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_heads_table_shows_a_head_that_beats_the_model(cache, capsys):
    heads.main(["--cache", str(cache), "--wards", "projection", "--seeds", "0"])
    [_, header, row, *_, last] = table(capsys)
    assert len(header) == len(row)
    base, balanced_base, majority, right = map(float, row[4:8])
    assert right > 90 > 70 > max(base, balanced_base, majority)
    assert "in 1 (base: 0), not below the base, balanced neither, in 1 of 1" in last[0]


def test_heads_table_takes_the_fields_classifier_for_the_base(cache, capsys):
    heads.main(
        ["--cache", str(cache), "--wards", "projection-field", "--wrong", "5", "--seeds", "0"]
    )
    [_, _, row, *_, last] = table(capsys)
    assert (
        float(row[4]) == float(row[7]) > 85
    )  # features that tell nothing leave the classifier alone
    assert "in 1 (base: 1), not below the base, balanced neither, in 1 of 1" in last[0]


def test_no_patient_of_a_field_ward_is_asked_by_heads_that_learnt_from_the_patient(
    tmp_path, monkeypatch
):
    samples = [
        Sample(
            tmp_path / f"{n}.png",
            "medpix",
            f"p{n // 2}",
            "train",
            {"modality": "CT", "contrast": value},
        )
        for n, value in enumerate(("yes", "no") * 20)
    ]
    other = Sample(tmp_path / "mr.png", "medpix", "p0", "train", {"modality": "MRI"})
    asked: list[tuple[set[str], int]] = []

    class Model:
        def __init__(self, left):
            self.left = left

        def judge(self, features):
            row = int(features["pooled"][0, 0])
            asked.append((self.left, row))
            return Reading(
                {}, {}, {"contrast": {"yes": 0.7, "no": 0.3}}, True, features["pooled"][0]
            )

        def answer_from(self, reading, question):
            return FieldAnswer("Yes", 0.7, "contrast")

    pooled = np.arange(41, dtype=np.float32)[:, None]
    monkeypatch.setattr(fielded, "kit_samples", lambda data: [*samples, other])
    monkeypatch.setattr(fielded, "extract", lambda *_: {"pooled": pooled})
    monkeypatch.setattr(fielded, "_fitted_without", lambda patients, *_: Model(patients))
    ward = open_ward("contrast-field", tmp_path, tmp_path)
    assert len(ward) == len(asked) == 40
    assert all(samples[row].patient in left and len(left) == 4 for left, row in asked)
    assert ward.base[ward.question].tolist() == ["Yes"] * 40
    assert ward.chances[0] == {"contrast": {"yes": 0.7, "no": 0.3}}


def test_wording_table_reaches_every_figure_where_the_fields_are_right(cache, capsys):
    wording.main(["--cache", str(cache), "--counts", "1", "10", "--seeds", "0"])
    [_, _, *rows] = table(capsys)
    assert [row[:3] for row in rows] == [
        ["model", "1", "0.0"],
        ["model", "10", "100.0"],
        ["classifiers", "1", "0.0"],
        ["classifiers", "10", "100.0"],
    ]
    assert all(row[4:6] == ["100.0", "100.0"] for row in (rows[1], rows[3]))


def test_readers_table_finds_the_reader_who_exchanges_the_answers(cache, capsys):
    readers.main(
        ["--cache", str(cache), "--wards", "projection", "--shared", "0.5", "--seeds", "0"]
    )
    rows = {row[2]: row for row in table(capsys)[2:]}
    assert rows["exchanged"][3] == "100" and rows["none"][3] == "0"
    assert rows["exchanged"][7] == rows["none"][7] == "0"


def test_patients_are_never_divided():
    patients = [str(n // 3) for n in range(90)]
    inside, outside = divided(patients, 0)
    assert len(inside) + len(outside) == 90
    assert not {patients[n] for n in inside} & {patients[n] for n in outside}


def test_ward_without_cache_or_kit_says_what_to_give(tmp_path):
    with pytest.raises(DatasetError, match="--data"):
        open_ward("contrast", tmp_path)
