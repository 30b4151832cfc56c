"""RadEval scores of captions and reports (github.com/jbdel/RadEval), if the package is installed.

Only scores that run locally; their models are downloaded on first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from radfound.benchmark.scoring.metrics import Metric, parts_of_mean, ratio
from radfound.exceptions import RequestError
from radfound.optional import library

LOCAL = ("bertscore", "green", "radcliq", "radeval_bertscore", "radgraph", "ratescore")


def radeval_metrics(names: Sequence[str]) -> list[Metric]:
    """Return RadEval's scores as metrics, each the mean over the texts.

    Parameters
    ----------
    names : sequence of str
        Of `LOCAL`.

    Raises
    ------
    RequestError
        If a name is unknown, the package is not installed, or a model it needs cannot be loaded.
    """
    if unknown := sorted(set(names) - set(LOCAL)):
        raise RequestError(f"--radeval: found {unknown[0]!r}; expected some of {', '.join(LOCAL)}")
    package = library("radeval", "radeval")
    try:
        evaluator = package.RadEval(metrics=list(names), per_sample=True, show_progress=False)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise RequestError(
            f"--radeval: {', '.join(names)} cannot be loaded ({error}); the models come from the Hugging Face hub, "
            "name others or leave the option out"
        ) from error

    @cache
    def score(answers: tuple[str, ...], truths: tuple[str, ...]) -> dict[str, Any]:
        return evaluator(refs=list(truths), hyps=list(answers))

    def metric(key: str) -> Metric:
        def statistics(answers: Sequence[str], truths: Sequence[str]) -> np.ndarray:
            return parts_of_mean(score(tuple(answers), tuple(truths))[key])

        return Metric(f"RadEval {key}", statistics, ratio, percent=False)

    return [metric(key) for key in evaluator.metric_keys]
