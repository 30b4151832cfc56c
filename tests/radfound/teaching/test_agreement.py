import zlib

import numpy as np
import pytest

from radfound.correction import Correction
from radfound.teaching.agreement import consistency

WIDTH = 32
QUESTION = "On which side is the lesion?"


def vector(study: str) -> np.ndarray:
    found = 0.3 * np.random.default_rng(zlib.crc32(study.encode())).normal(size=WIDTH)
    found[:12] += 0.4 if is_left(study) else -0.4
    return found


def is_left(study: str) -> bool:
    return int(study[1:]) % 2 == 0


def side(study: str, swapped: bool = False) -> str:
    return "Left" if is_left(study) != swapped else "Right"


def correction(author: str, number: int, text: str | None = None, **changes) -> Correction:
    study = f"s{number}"
    fields = {
        "images": (study,),
        "task": "vqa",
        "question": QUESTION,
        "model_text": "Middle",
        "verdict": "edited",
        "text": side(study) if text is None else text,
        "author": author,
        "image_hash": study,
    }
    return Correction(**{**fields, **changes})


def doubts(rows, **kwargs):
    return {each.author: each.doubts for each in consistency(rows, **kwargs)}


def honest(author: str, numbers) -> list[Correction]:
    return [correction(author, number) for number in numbers]


def swapped(author: str, numbers) -> list[Correction]:
    return [correction(author, n, side(f"s{n}", swapped=True)) for n in numbers]


def test_honest_readers_are_not_doubted():
    rows = honest("Dr A", range(40)) + honest("Dr B", range(20, 60)) + honest("Dr C", range(10, 50))
    assert doubts(rows, features=vector) == {"Dr A": (), "Dr B": (), "Dr C": ()}


def test_reader_who_swaps_sides_is_found_by_two_other_readers():
    rows = honest("Dr A", range(12)) + honest("Dr B", range(12)) + swapped("Dr C", range(12))
    found = doubts(rows)
    assert found["Dr A"] == found["Dr B"] == ()
    assert found["Dr C"] == ("disagrees with other readers: 12 of 12, 15 % expected at most",)


def test_two_readers_who_only_contradict_each_other_are_both_shown():
    found = doubts(honest("Dr A", range(12)) + swapped("Dr B", range(12)))
    assert found["Dr A"] and found["Dr B"]


def test_reader_of_other_studies_is_found_by_what_is_known_for_sure():
    rows = honest("Dr A", range(30)) + swapped("Dr B", range(30, 60))
    found = doubts(rows, sure=lambda row: side(row.image_hash) if row.image_hash > "s5" else None)
    assert not found["Dr A"] and "known for sure" in found["Dr B"][0]


def test_reader_of_other_studies_is_found_by_what_others_teach_about_the_pictures():
    rows = (
        honest("Dr A", range(30)) + honest("Dr B", range(30, 60)) + swapped("Dr C", range(60, 90))
    )
    found = doubts(rows, features=vector)
    assert found["Dr A"] == found["Dr B"] == ()
    assert "about the pictures" in found["Dr C"][0]
    assert doubts(rows) == {"Dr A": (), "Dr B": (), "Dr C": ()}  # nothing to compare with


def test_reader_who_always_gives_one_answer_is_found():
    rows = honest("Dr A", range(40)) + [correction("Dr B", n, "Left") for n in range(40, 80)]
    found = doubts(rows)
    assert not found["Dr A"] and "one answer more often" in found["Dr B"][0]


def test_reader_who_contradicts_earlier_texts_of_the_same_reader_is_found():
    rows = honest("Dr A", range(12)) + swapped("Dr A", range(12))
    assert "earlier texts" in doubts(rows)["Dr A"][0]


@pytest.mark.parametrize("text", ["left", " Left. "])
def test_spelling_is_no_disagreement(text):
    numbers = range(0, 24, 2)
    rows = honest("Dr A", numbers) + [correction("Dr B", n, text) for n in numbers]
    assert doubts(rows) == {"Dr A": (), "Dr B": ()}
