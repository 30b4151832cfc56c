"""What readers of a study said, as corrections that a model can learn from.

Only of readers who agreed, only of texts that a model wrote (sources of the kind "answers" or "server"), and only
of the first showing of a case whose scores and preferences the reader has all given. A text is

- edited, if the reader's comment under it begins with "Instead:"; what follows is what the reader says instead;
- accepted, if none of its scores is more than a point from the good end;
- edited, if the reader preferred another text of the same case that would be accepted; that text is then what the
  reader says instead. Where no preference was asked, a higher mean score prefers;
- rejected, if some score is at most a point from the bad end.

The first of these that holds counts. What lies between teaches nothing clear and is left out, and so are other
comments: training takes the text of a correction for the right answer, which "misses the effusion" is not. All
comments are in ratings.csv of the analysis.
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
    """Append what can be learnt from a study to the log of corrections of a folder of studies.

    Exporting twice records nothing twice.

    Parameters
    ----------
    folder : path
        The study's folder.
    studies : path
        The folder of studies that the server uses. It must know the images by the ids that `study.yaml` gives
        as `server_images`, by default the cases' ids.

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
    # training learns from the newest correction of a question: a text that a reader has chosen over the model's
    # before one that will do, and both before none
    found.sort(key=lambda each: ("rejected", "accepted", "edited").index(each.verdict))
    log = CorrectionLog(log_path(studies))
    new = sum(log.append(correction) for correction in found)
    verdicts = {name: sum(each.verdict == name for each in found) for name in VERDICTS}
    return {"asked": len(plan.readers), "readers": len(agreed), **verdicts, "new": new}


def corrections_of(
    plan: Plan, key: Key, store: RatingStore, reader: Reader
) -> Iterator[Correction]:
    """Go through what one reader's ratings say, as corrections, in the order of the items."""
    ratings = store.latest(reader.id)
    complete = store.complete(reader)
    for item in reader.items:
        if item.id in complete and item.id not in key.repeats:
            said = _Said(plan, item, [rating for rating in ratings if rating.item == item.id])
            for candidate in item.candidates:
                if key.sources[key.candidates[candidate.id]] != PEOPLE:
                    verdict, text = said.verdict(candidate)
                    if verdict is not None:
                        yield _correction(plan, key, reader, item, candidate, verdict, text, said)


class _Said:
    """What one reader said about one item."""

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
        """Return the verdict on a text, None for none, and what the reader says instead."""
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
    plan: Plan, key: Key, reader: Reader, item: Item, candidate: Candidate, verdict: str, text: str, said: _Said
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
        created=said.created,
        model=origin.model,
        image_hash=known.digest,
    )
