"""Metrics that compare an answer or a text with its reference.

A `Metric` keeps additive statistics for each item, so that a bootstrap resample needs no new
scoring. Texts are scored by sacrebleu (BLEU), rouge-score (ROUGE-L) and pycocoevalcap (CIDEr; METEOR if Java is
installed), findings by `radfound.benchmark.scoring.findings`.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from radfound.benchmark.scoring.findings import COUNTED, compare_findings
from radfound.optional import library

ARTICLES = ("a", "an", "the")
YES_OR_NO = ("yes", "no")


@dataclass(frozen=True)
class Metric:
    """A score over many items.

    Parameters
    ----------
    name : str
    statistics : callable
        From N answers and N references to additive statistics, float64, shape (N, K).
    value : callable
        From sums of the statistics over items, shape (..., K), to scores, shape (...); NaN without scored
        items.
    percent : bool
        Whether the score is shown in per cent.
    lower_is_better : bool
    counted : int or None
        Index of the sum that counts the scored units; None for the number of items.
    """

    name: str
    statistics: Callable[[Sequence[str], Sequence[str]], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray]
    percent: bool = True
    lower_is_better: bool = False
    counted: int | None = None


def normalised(answer: str) -> str:
    """Return an answer in lower case without punctuation and articles, as VQA metrics compare them."""
    words = re.sub(r"[^\w\s]", " ", answer.lower()).split()
    return " ".join(word for word in words if word not in ARTICLES)


def exact_match(answer: str, truth: str) -> float:
    """Return 1.0 if the normalised answer and truth are equal, otherwise 0.0."""
    return float(normalised(answer) == normalised(truth))


def closed_match(answer: str, truth: str) -> float:
    """Return 1.0 for a right answer to a closed question, otherwise 0.0.

    Where the truth is yes or no, the first yes or no of the answer counts, so that "Yes, there is an effusion." is as
    right as "Yes". Other truths are compared by `exact_match`.
    """
    wanted = normalised(truth)
    if wanted not in YES_OR_NO:
        return exact_match(answer, truth)
    said = next((word for word in normalised(answer).split() if word in YES_OR_NO), None)
    return float(said == wanted)


def token_recall(answer: str, truth: str) -> float:
    """Return the share of the truth's words, with multiplicity, that the answer holds."""
    wanted = normalised(truth).split()
    return _common(answer, truth) / len(wanted) if wanted else float(not normalised(answer))


def token_f1(answer: str, truth: str) -> float:
    """Return the harmonic mean of word precision and recall (as SQuAD defines it)."""
    given, wanted = normalised(answer).split(), normalised(truth).split()
    if not given or not wanted:
        return float(given == wanted)
    return 2 * _common(answer, truth) / (len(given) + len(wanted))


def _common(answer: str, truth: str) -> int:
    return sum((Counter(normalised(answer).split()) & Counter(normalised(truth).split())).values())


def words_of(text: str) -> str:
    """Return a text's words in lower case with single spaces, as CIDEr and METEOR are given them."""
    return " ".join(re.findall(r"\w+", text.lower()))


def mean_metric(name: str, score: Callable[[str, str], float], percent: bool = True) -> Metric:
    """Return the metric that is the mean of a score over the items."""

    def statistics(answers: Sequence[str], truths: Sequence[str]) -> np.ndarray:
        return parts_of_mean([score(a, t) for a, t in zip(answers, truths, strict=True)])

    return Metric(name, statistics, ratio, percent)


def parts_of_mean(scores: Sequence[float]) -> np.ndarray:
    """Return the statistics of a mean, shape (N, 2): score and one."""
    return np.stack([np.asarray(scores, dtype=float), np.ones(len(scores))], axis=1)


def ratio(sums: np.ndarray) -> np.ndarray:
    """Return the first sum over the second, (..., 2) to (...)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def accuracy(name: str = "accuracy") -> Metric:
    """Return the share of answers that match exactly."""
    return mean_metric(name, exact_match)


def closed_accuracy() -> Metric:
    """Return the share of right answers to closed questions, by `closed_match`."""
    return mean_metric("accuracy", closed_match)


def balanced_accuracy(classes: Sequence[str], score: Callable[[str, str], float]) -> Metric:
    """Return the mean over the true answers of the share that is right, so that the commonest gains nothing.

    Parameters
    ----------
    classes : sequence of K str
        The true answers that count, normalised; items with other ones are left out.
    score : callable
        From answer and truth to 1.0 or 0.0.
    """
    places = {name: place for place, name in enumerate(classes)}

    def statistics(answers: Sequence[str], truths: Sequence[str]) -> np.ndarray:
        found = np.zeros((len(truths), 2 * len(classes) + 1))
        for row, (answer, truth) in enumerate(zip(answers, truths, strict=True)):
            place = places.get(normalised(truth))
            if place is not None:
                found[row, place] = score(answer, truth)
                found[row, len(classes) + place] = found[row, -1] = 1
        return found

    def value(sums: np.ndarray) -> np.ndarray:
        right, asked = sums[..., : len(classes)], sums[..., len(classes) : -1]
        shares = np.where(asked > 0, right / np.maximum(asked, 1), np.nan)
        with np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a draw without any class is NaN
            return np.asarray(np.nanmean(shares, axis=-1))

    return Metric("balanced accuracy", statistics, value, counted=2 * len(classes))


# Texts -----------------------------------------------------------------------------------------


def bleu_metrics() -> list[Metric]:
    """Return corpus BLEU-1 to BLEU-4 (sacrebleu: lower case, 13a tokens, exponential smoothing)."""
    bleu = library("sacrebleu.metrics.bleu", "bench").BLEU(lowercase=True, effective_order=True)

    def statistics(answers: Sequence[str], truths: Sequence[str]) -> np.ndarray:
        scores = [bleu.sentence_score(a, [t]) for a, t in zip(answers, truths, strict=True)]
        rows = [[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores]
        return np.array(rows, dtype=float).reshape(len(rows), 10)

    def value(order: int) -> Callable[[np.ndarray], np.ndarray]:
        def scored(sums: np.ndarray) -> np.ndarray:
            rows = sums.reshape(-1, 10).round().astype(int).tolist()
            found = [
                bleu.compute_bleu(
                    correct=row[:order], total=row[4 : 4 + order], sys_len=row[8], ref_len=row[9],
                    smooth_method="exp", max_ngram_order=order,
                ).score / 100
                for row in rows
            ]  # fmt: skip
            return np.array(found).reshape(sums.shape[:-1])

        return scored

    return [Metric(f"BLEU-{order}", statistics, value(order)) for order in (1, 2, 3, 4)]


def rouge_l() -> Metric:
    """Return the mean ROUGE-L F1 (rouge-score, without stemming)."""
    scorer = library("rouge_score.rouge_scorer", "bench").RougeScorer(["rougeL"], use_stemmer=False)
    return mean_metric("ROUGE-L", lambda a, t: scorer.score(t, a)["rougeL"].fmeasure)


def cider() -> Metric:
    """Return the mean CIDEr (pycocoevalcap; Vedantam et al. 2015), 0 to 10, word weights from all references."""
    scorer = library("pycocoevalcap.cider.cider", "bench").Cider()

    def statistics(answers: Sequence[str], truths: Sequence[str]) -> np.ndarray:
        _, scores = scorer.compute_score(*_numbered(answers, truths))
        return parts_of_mean(scores)

    return Metric("CIDEr", statistics, ratio, percent=False)


def meteor() -> Metric | None:
    """Return the mean METEOR 1.5 (pycocoevalcap's jar), or None without Java."""
    if shutil.which("java") is None:
        return None
    scoring = library("pycocoevalcap.meteor.meteor", "bench")

    def statistics(answers: Sequence[str], truths: Sequence[str]) -> np.ndarray:
        scorer = scoring.Meteor()
        try:
            _, scores = scorer.compute_score(*_numbered(answers, truths))
        finally:
            scorer.meteor_p.kill()
            scorer.meteor_p.wait()
        return parts_of_mean(scores)

    return Metric("METEOR", statistics, ratio)


def _numbered(
    answers: Sequence[str], truths: Sequence[str]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Return references and answers as pycocoevalcap takes them."""
    references = {k: [words_of(truth)] for k, truth in enumerate(truths)}
    return references, {k: [words_of(answer)] for k, answer in enumerate(answers)}


# Findings --------------------------------------------------------------------------------------


def finding_metrics() -> list[Metric]:
    """Return F1 of findings and of present findings, and the error rates of polarity and laterality."""

    def statistics(answers: Sequence[str], truths: Sequence[str]) -> np.ndarray:
        rows = [compare_findings(a, t) for a, t in zip(answers, truths, strict=True)]
        return np.array(rows, dtype=float).reshape(len(rows), len(COUNTED))

    def f1(right: str, extra: str, missed: str) -> Callable[[np.ndarray], np.ndarray]:
        def scored(sums: np.ndarray) -> np.ndarray:
            hit, more, less = (sums[..., COUNTED.index(n)] for n in (right, extra, missed))
            return ratio(np.stack([2 * hit, 2 * hit + more + less], axis=-1))

        return scored

    def share(part: str, whole: str) -> Callable[[np.ndarray], np.ndarray]:
        columns = [COUNTED.index(part), COUNTED.index(whole)]
        return lambda sums: ratio(sums[..., columns])

    sides, both = COUNTED.index("sides_compared"), COUNTED.index("named_by_both")
    return [
        Metric("finding F1", statistics, f1("right", "extra", "missed")),
        Metric(
            "present-finding F1",
            statistics,
            f1("present_right", "present_extra", "present_missed"),
        ),
        Metric(
            "polarity errors", statistics, share("opposite", "named_by_both"),
            lower_is_better=True, counted=both,
        ),
        Metric(
            "laterality errors", statistics, share("wrong_side", "sides_compared"),
            lower_is_better=True, counted=sides,
        ),
    ]  # fmt: skip


def text_metrics() -> list[Metric]:
    """Return the metrics of captions and reports; METEOR only if Java is installed."""
    found = meteor()
    return [*bleu_metrics(), rouge_l(), cider(), *([found] if found else []), *finding_metrics()]


def answer_metrics() -> list[Metric]:
    """Return the metrics of open answers."""
    return [
        accuracy("exact match"),
        mean_metric("token recall", token_recall),
        mean_metric("token F1", token_f1),
    ]
