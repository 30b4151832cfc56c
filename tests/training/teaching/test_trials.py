import json

import numpy as np
import pytest

from radfound.datasets.metadata import METADATA_QUESTIONS
from radfound.exceptions import DatasetError
from training.teaching import heads, readers, wording
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
    return tmp_path


def table(capsys):
    lines = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_heads_table_shows_a_head_that_beats_the_model(cache, capsys):
    heads.main(["--cache", str(cache), "--wards", "projection", "--seeds", "0"])
    [_, _, row, *_, last, field] = table(capsys)
    base, majority, head = map(float, row[4:7])
    assert head > 90 > 70 > max(base, majority)
    assert "not below the base in 1 of 1" in last[0]
    assert "the field's own head: right 9" in field[0] or "right 100" in field[0]


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
