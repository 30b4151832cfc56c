"""The checks that an adapter of any backend must pass, by the backend's verbs alone.

The checks that need a regression set or the weights of the model are named as not done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radfound.engine.protocol import Backend
from radfound.validation import NotNegative
from training.corrections.gate import Check, Verdict
from training.vlm.examples import Example, Examples

NAMES = (
    "changes the answers",
    "corrections",
    "other answers",
    "sees the image",
    "regression",
    "held-out corrections",
)
"""The checks in their order."""
_GENERATED = 32  # answers generated for a check


@dataclass(frozen=True)
class Bounds:
    """Tolerances of the gate.

    Parameters
    ----------
    least_reproduced : float
        Smallest share of the corrections that is reproduced.
    least_kept : float
        Smallest share of replayed answers that stay.
    """

    least_reproduced: NotNegative = 0.9
    least_kept: NotNegative = 0.8


def gate(backend: Backend, adapter: str, examples: Examples, bounds: Bounds) -> Verdict:
    """Check an adapter that the backend has loaded.

    Parameters
    ----------
    backend : Backend
    adapter : str
        Its id there; `use_adapter` has checked that it changes the probabilities.
    examples : Examples
        What it was trained on.
    bounds : Bounds
    """
    checks = [
        Check(
            "changes the answers", True, "the probe's probabilities changed when it was loaded", {}
        ),
        _reproduced(backend, adapter, examples.corrections, bounds),
        _others_stay(backend, adapter, examples.replay, bounds),
    ]
    if backend.describe().abilities.score:
        checks.append(_sees_the_image(backend, adapter, examples.corrections))
    else:
        checks.append(_not_done("sees the image", "the backend cannot score a given answer"))
    checks.append(_not_done("regression", "this model has no set of questions with known answers"))
    checks.append(_not_done("held-out corrections", "all corrections were used for training"))
    return Verdict(tuple(checks))


def _reproduced(
    backend: Backend, adapter: str, examples: Sequence[Example], bounds: Bounds
) -> Check:
    some = _some(examples)
    right = [_answer(backend, adapter, each) == each.text for each in some]
    share = float(np.mean(right))
    limit = bounds.least_reproduced
    words = f"{share:.0%} of {len(some)} reproduced, at least {limit:.0%} expected"
    if share < limit:
        words += "; train for more epochs, or look for corrections that contradict each other"
    numbers = {"share": share, "n": float(len(some))}
    return Check("corrections", share >= limit, words, numbers, share, limit)


def _others_stay(
    backend: Backend, adapter: str, examples: Sequence[Example], bounds: Bounds
) -> Check:
    some = _some(examples)
    if not some:
        return _not_done("other answers", "the base model gave no complete answer to compare with")
    share = float(np.mean([_answer(backend, adapter, each) == each.text for each in some]))
    limit = bounds.least_kept
    words = f"{share:.0%} of {len(some)} stayed, at least {limit:.0%} expected"
    numbers = {"share": share, "n": float(len(some))}
    return Check("other answers", share >= limit, words, numbers, share, limit)


def _sees_the_image(backend: Backend, adapter: str, examples: Sequence[Example]) -> Check:
    """Check that the right answers are likelier with their own image than with a blank one, or were not before."""

    def gain(name: str | None) -> float:
        return float(
            np.mean(
                [
                    backend.score(each.study, each.question, each.text, adapter=name)
                    - backend.score(each.study.blanked(), each.question, each.text, adapter=name)
                    for each in _some(examples)
                ]
            )
        )

    was, now = gain(None), gain(adapter)
    words = (
        f"an image adds {now:.2f} nats a token to the corrections, {was:.2f} with the base model"
    )
    return Check("sees the image", now > 0 or was <= 0, words, {"before": was, "after": now})


def _answer(backend: Backend, adapter: str, example: Example) -> str:
    limit = example.answer_tokens + 1
    stream = backend.stream(example.study, example.question, adapter=adapter, limit=limit)
    return "".join(token.text for token in stream).strip()


def _some(examples: Sequence[Example]) -> Sequence[Example]:
    return examples[:: max(1, len(examples) // _GENERATED)][:_GENERATED]


def _not_done(name: str, reason: str) -> Check:
    return Check(name, None, f"not done: {reason}", {})
