"""Effective rank of a set of vectors: in how many directions they really differ."""

from __future__ import annotations

import numpy as np

LABEL_TOKENS = 9
"""The first visual tokens of radfound-mini are taught the words of labels (`training.stages.grounding`)."""


def effective_rank(vectors: np.ndarray) -> float:
    """Return the effective rank after Roy and Vetterli (2007): exp of the entropy of the singular values.

    Parameters
    ----------
    vectors : array, shape (N, D)
        One vector for each picture; they are centred, and their singular values scaled to the sum 1.

    Returns
    -------
    float
        1 to min(N - 1, D); 0.0 if all vectors are equal or there are fewer than two.
    """
    if len(vectors) < 2:
        return 0.0
    centred = np.asarray(vectors, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False)
    if values.max() <= 1e-9 * max(1.0, float(np.abs(vectors).max())):
        return 0.0
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def free_token_mean(tokens: np.ndarray) -> np.ndarray:
    """Return the mean of the visual tokens, (T, D) to (D,), without those that are taught labels."""
    mean: np.ndarray = tokens[LABEL_TOKENS if len(tokens) > LABEL_TOKENS else 0 :].mean(axis=0)
    return mean
