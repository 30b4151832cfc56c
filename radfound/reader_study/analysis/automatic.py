"""RadVLBench's metrics for each rated text."""

from __future__ import annotations

import numpy as np

from radfound.benchmark.scoring.metrics import answer_metrics, text_metrics
from radfound.reader_study.design.key import Key


def metric_scores(key: Key) -> dict[str, np.ndarray]:
    """Return every metric's score of every text of a case that has a reference.

    Returns
    -------
    dict of str to float array, shape (C, S)
        By the metric's name; cases and sources in the order of the key. Higher is better: the sign of
        error metrics is reversed. NaN if a case has no reference, for the source of the references, and if a
        metric is undefined for a text (such as finding F1 of a text without findings).
    """
    sources = [source for source in key.sources if source != key.reference]
    texts = [
        (c, list(key.sources).index(source), case.texts[source].text, case.reference)
        for c, case in enumerate(key.cases.values())
        if case.reference
        for source in sources
    ]
    if not texts:
        return {}
    answers = [text for *_, text, _ in texts]
    references = [reference for *_, reference in texts]
    shape = len(key.cases), len(key.sources)
    found = {}
    for metric in (*answer_metrics()[1:], *text_metrics()):
        scores = np.full(shape, np.nan)
        each = metric.value(metric.statistics(answers, references))
        for (c, s, *_), score in zip(texts, each, strict=True):
            scores[c, s] = -score if metric.lower_is_better else score
        found[metric.name] = scores
    return found
