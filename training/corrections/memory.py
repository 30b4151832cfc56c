"""What recall, wording and heads answer to held-out corrections, without an adapter."""

from __future__ import annotations

from collections.abc import Sequence

from radfound.correction import Correction
from radfound.question import Question
from radfound.teaching import Teaching


def remembered(teaching: Teaching | None, held_out: Sequence[Correction]) -> list[str | None]:
    """Return the text that teaching gives to each correction's question from the corrections of other studies.

    Parameters
    ----------
    teaching : Teaching or None
        None remembers nothing.
    held_out : sequence of Correction

    Returns
    -------
    list of str or None
        None where the model answers.
    """
    if teaching is None or not held_out:
        return [None] * len(held_out)
    images = {each.images for each in held_out}
    digests = {each.image_hash for each in held_out if each.image_hash}
    known = teaching.over(
        row
        for row in teaching.memory.rows()
        if row.images not in images and row.image_hash not in digests
    )
    found = []
    for each in held_out:
        question = Question(each.task, each.question, region=each.region)
        taught = known.after_answer(each.image_hash, each.images, question, each.model_text)
        found.append(None if taught is None else taught.text)
    return found
