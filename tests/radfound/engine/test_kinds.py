"""Kinds of question beside VQA-RAD's own types."""

import json
from collections import Counter

import pytest

from radfound.engine.confidence import calibration_group
from radfound.engine.silence.kinds import KINDS, broad_kind, kind_of_question

MEANT = {
    "PRES": "presence", "ABN": "normality", "POS": "location", "SIZE": "size", "COUNT": "size",
    "MODALITY": "picture", "PLANE": "picture", "ORGAN": "picture",
}  # fmt: skip


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Is there a tumor?", "presence"),
        ("Does this show a fracture?", "presence"),
        ("Is there a nodule in the left lung?", "presence"),
        ("Is this image normal?", "normality"),
        ("What is abnormal?", "normality"),
        ("What is the diagnosis?", "normality"),
        ("Where is the liver?", "location"),
        ("Which lobe is this?", "location"),
        ("Is the lesion on the left or the right?", "location"),
        ("How many ribs are there?", "size"),
        ("Is the heart enlarged?", "size"),
        ("What imaging modality was used?", "picture"),
        ("Is this an axial image?", "picture"),
        ("Which organ system is shown?", "picture"),
        ("What is the dark structure?", "other"),
        ("", "other"),
    ],
)
def test_questions_are_told_apart_by_their_words(question, kind):
    assert kind_of_question("vqa", question) == kind and kind in KINDS


def test_captions_and_reports_are_of_no_kind():
    assert kind_of_question("caption", None) is broad_kind("report", None) is None


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Is there a tumor?", "finding"),
        ("What is wrong with this patient?", "finding"),
        ("Which lobe is this?", "open"),
        ("Where is the liver?", "open"),
    ],
)
def test_broad_kinds_are_those_of_the_first_files(question, kind):
    assert broad_kind("vqa", question) == kind


def test_vqa_rads_own_types_are_met(kit):
    found: Counter[tuple[str, bool]] = Counter()
    for line in (kit / "vqa" / "vqa_rad.jsonl").read_text().splitlines():
        row = json.loads(line)
        meant = MEANT.get(row["question_type"])
        if row["question_type"] in ("PRES", "OTHER", "ATTRIB", "COLOR"):
            closed = calibration_group("vqa", row["question"]) == "closed"
            meant = "presence" if closed else "other"
        if meant:
            found[meant, kind_of_question("vqa", row["question"]) == meant] += 1
    shares = {kind: found[kind, True] / (found[kind, True] + found[kind, False]) for kind in KINDS}
    assert min(shares.values()) > 0.7, shares
    assert sum(found[kind, True] for kind in KINDS) / sum(found.values()) > 0.85
