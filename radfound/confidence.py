"""How sure an answer is, from the probabilities of its tokens.

Length-normalised probability and entropy after Malinin and Gales (arXiv 2002.07650): free at request
time, and comparable between short and long answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def length_normalised_probability(log_probabilities: Sequence[float]) -> float | None:
    """Return the geometric mean of the tokens' probabilities, in [0, 1]; None for no tokens."""
    if not log_probabilities:
        return None
    return math.exp(sum(log_probabilities) / len(log_probabilities))


def normalised_entropy(entropies: Sequence[float], vocabulary: int) -> float | None:
    """Return the tokens' mean entropy (nats) over that of a uniform choice, in [0, 1]; None for no tokens."""
    if not entropies:
        return None
    return min(1.0, max(0.0, sum(entropies) / len(entropies) / math.log(vocabulary)))
