"""Export ratings as corrections for fine-tuning.

The export covers readers who agreed, texts written by a model (sources of the kind "answers" or "server"), and
first showings with all scores and preferences. A text is

- edited, if the reader's comment begins with "Instead:"; the rest of the comment is the corrected text;
- accepted, if all its scores are within one point of the good end;
- edited, if the reader preferred another text of the same case that would be accepted; that text is the corrected
  one. Without preferences, the text with the higher mean score is the preferred one;
- rejected, if a score is within one point of the bad end.

The first rule that holds counts. Other texts are ambiguous and left out, and so are other comments: training takes
the text of a correction as the right answer, which "misses the effusion" is not. All comments are in ratings.csv of
the analysis.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

from radfound.correction import VERDICTS, Correction
from radfound.reader_study.design.key import PEOPLE, Key
from radfound.reader_study.design.plan import SCALE, Candidate, Item, Plan, Reader
from radfound.reader_study.rating.ratings import (
    COMMENT,
    FIRST,
    PREFERENCE,
    SCORE,
    SECOND,
    Rating,
    RatingStore,
)
from radfound.records.corrections import CorrectionLog, log_path

INSTEAD = "instead:"


def export_corrections(folder: str | Path, studies: str | Path) -> dict[str, int]:
    """Append a study's corrections to the log of a folder of studies.

    A repeated export adds nothing twice.

    Parameters
    ----------
    folder : path
        The study's folder.
    studies : path
        The folder of studies that the server uses. Its ids of the images are `server_images` in
        `study.yaml`, by default the cases' ids.

    Returns
    -------
    dict of str to int
        "asked" (readers), "readers" (who agreed), "accepted", "edited", "rejected", and how many are "new".
    """
    plan = Plan.load(folder)
    key = Key.load(plan)
    store = RatingStore(plan)
    agreed = [reader for reader in plan.readers if store.has_agreed(reader.id)]
    found = [each for reader in agreed for each in corrections_of(plan, key, store, reader)]
    # fine-tuning uses the newest correction of a question: edited texts take precedence over accepted ones, and both
    # over rejections
    found.sort(key=lambda each: ("rejected", "accepted", "edited").index(each.verdict))
    log = CorrectionLog(log_path(studies))
    new = sum(log.append(correction) for correction in found)
    verdicts = {name: sum(each.verdict == name for each in found) for name in VERDICTS}
    return {"asked": len(plan.readers), "readers": len(agreed), **verdicts, "new": new}


def corrections_of(
    plan: Plan, key: Key, store: RatingStore, reader: Reader
) -> Iterator[Correction]:
    """Yield one reader's ratings as corrections, in the order of the items."""
    ratings = store.latest(reader.id)
    complete = store.complete(reader)
    for item in reader.items:
        if item.id in complete and item.id not in key.repeats:
            own = _ItemRatings(plan, item, [rating for rating in ratings if rating.item == item.id])
            for candidate in item.candidates:
                if key.sources[key.candidates[candidate.id]] != PEOPLE:
                    verdict, text = own.verdict(candidate)
                    if verdict is not None:
                        yield _correction(plan, key, reader, item, candidate, verdict, text, own)


class _ItemRatings:
    """The ratings of one item by one reader."""

    def __init__(self, plan: Plan, item: Item, ratings: list[Rating]):
        self.item = item
        self.created = max(rating.created for rating in ratings)
        self._goodness: dict[str, list[int]] = {each.id: [] for each in item.candidates}
        self._comments: dict[str, str] = {}
        self._preferred: dict[tuple[str, str], str] = {}
        for rating in ratings:
            if rating.kind == SCORE:
                score = int(rating.value)
                if plan.criterion(rating.name).better == "low":
                    score = SCALE[0] + SCALE[-1] - score
                self._goodness[rating.candidate].append(score)
            elif rating.kind == COMMENT:
                self._comments[rating.candidate] = rating.value.strip()
            elif rating.kind == PREFERENCE:
                self._preferred[rating.candidate, rating.name] = rating.value
        self._pairwise = plan.pairwise

    def verdict(self, candidate: Candidate) -> tuple[str | None, str]:
        """Return the verdict on a text (None if ambiguous) and the corrected text."""
        comment = self._comments.get(candidate.id, "")
        if comment.casefold().startswith(INSTEAD) and comment[len(INSTEAD) :].strip():
            return "edited", comment[len(INSTEAD) :].strip()
        if self._is_good(candidate):
            return "accepted", candidate.text
        better = [
            each
            for each in self.item.candidates
            if each.text != candidate.text
            and self._is_good(each)
            and self._prefers(each, candidate)
        ]
        if better:
            return "edited", max(better, key=lambda each: sum(self._goodness[each.id])).text
        if min(self._goodness[candidate.id]) <= SCALE[0] + 1:
            return "rejected", ""
        return None, ""

    def _is_good(self, candidate: Candidate) -> bool:
        return candidate.text != "" and min(self._goodness[candidate.id]) >= SCALE[-1] - 1

    def _prefers(self, one: Candidate, other: Candidate) -> bool:
        if not self._pairwise:
            return sum(self._goodness[one.id]) > sum(self._goodness[other.id])
        return (
            self._preferred.get((one.id, other.id)) == FIRST
            or self._preferred.get((other.id, one.id)) == SECOND
        )


def _correction(
    plan: Plan, key: Key, reader: Reader, item: Item, candidate: Candidate, verdict: str, text: str, own: _ItemRatings
) -> Correction:  # fmt: skip
    case, known = plan.case(item.case), key.cases[item.case]
    origin = known.texts[key.candidates[candidate.id]]
    content = (key.study, candidate.id, verdict, text)
    return Correction(
        id=str(uuid.uuid5(uuid.NAMESPACE_URL, repr(content))),
        answer_id=origin.answer_id,
        images=known.images,
        task=case.task,
        question=case.question,
        model_text=candidate.text,
        verdict=verdict,
        text=text,
        author=reader.id,
        created=own.created,
        model=origin.model,
        image_hash=known.digest,
    )
