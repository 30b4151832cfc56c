"""How far an answer's probability moves where no picture can matter: the threshold of the live check.

Nobody can answer `UNANSWERABLE` from a picture. What their answers move when one picture is exchanged for another of
the same kind is noise, and an answer that moves no more than that does not depend on the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from radfound.datasets import Example
from radfound.engine.generated import Ask, generate
from radfound.engine.protocol import Backend
from radfound.engine.silence.live import LiveCheck
from radfound.question import Question

UNANSWERABLE = (
    "Is the patient married?",
    "Is the patient left-handed?",
    "Did the patient come by train?",
    "Is the patient a teacher?",
    "Does the patient like music?",
    "Was this image taken on a Monday?",
    "Is it raining outside?",
    "Does the patient have a brother?",
)
SHARE = 0.95
_STUDIES = 24
_TOKENS = 8


def least_move(
    backend: Backend,
    live: LiveCheck,
    examples: Sequence[Example],
    advance: Callable[[int], None] = lambda count: None,
) -> float | None:
    """Return the move that `SHARE` of the answers to `UNANSWERABLE` do not exceed; None without a yes or no.

    Parameters
    ----------
    backend : Backend
        Of the check.
    live : LiveCheck
    examples : sequence of Example
        Some of them are shown, evenly chosen.
    advance : callable, optional
        Called with the number of studies since the last call.
    """
    moves = []
    for example in examples[:: max(1, len(examples) // _STUDIES)][:_STUDIES]:
        study = example.read()
        questions = [Question("vqa", text) for text in UNANSWERABLE]
        answers = generate(backend, [Ask(study, question, _TOKENS) for question in questions])
        for question, answer in zip(questions, answers, strict=True):
            if live.is_checked(answer):
                moves.append(live.move(study, question, answer, None).most)
        advance(1)
    return float(np.quantile(moves, SHARE)) if moves else None
