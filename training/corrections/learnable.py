"""Which corrections can be learnt, and what is replayed beside them, whatever the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from radfound.correction import Correction
from radfound.datasets.metadata import METADATA_QUESTIONS
from radfound.exceptions import TrainingError
from radfound.study.region import region_key

LONGEST_ANSWER = 256
"""In tokens, stop token included."""
REPLAY_QUESTIONS = tuple(wordings[0] for wordings in METADATA_QUESTIONS.values())
"""Questions about corrected studies, whose answers should stay as they are."""


def by_view(corrections: Sequence[Correction]) -> list[list[Correction]]:
    """Return the corrections of each study or region of it, in the order of the first ones."""
    found: dict[tuple[tuple[str, ...], str | None], list[Correction]] = {}
    for each in corrections:
        found.setdefault((each.images, region_key(each.region)), []).append(each)
    return list(found.values())


def too_long(tokens: int) -> str | None:
    """Return why an answer of so many tokens is left out; None if it can be learnt."""
    if tokens <= LONGEST_ANSWER:
        return None
    return f"text: {tokens} tokens; answers of at most {LONGEST_ANSWER} can be learnt"


def nothing_to_learn(left_out: Mapping[str, str]) -> TrainingError:
    """Return the error of a run without a correction to learn from, with the first reasons."""
    reasons = sorted(set(left_out.values()))[:3]
    return TrainingError(f"corrections: none can be learnt from ({'; '.join(reasons)})")
