"""Heads: a closed set of answers to one question, learnt from corrections on cached features.

A head is used only after it gave more right answers than the model and than the commonest answer on
corrections that it was not fitted to, and only for studies that resemble those it was fitted to. Where the model is silent,
it need only be better than the commonest answer. Where a field's classifier
knows the answers, its answer is the one to beat, and the head learns only what has to be added to its log-probabilities.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from radfound.correction import Correction
from radfound.question import CANNOT_TELL
from radfound.teaching.logistic import Logistic, Span, fit
from radfound.teaching.nearness import Nearness
from radfound.teaching.questions import answer_key, question_key

Features = Callable[[str], "np.ndarray | None"]
"""From the digest of a study to its features, float array of shape (D,); None if they are not cached."""

Known = Callable[[str, str, Sequence[str]], "Mapping[str, float] | None"]
"""From the digest of a study, a question and answers to it to the probability of each, as far as a field's classifier
knows it; None where it knows nothing."""

MOST_CLASSES = 8
FEWEST = 20
FEWEST_OF_A_CLASS = 5
_NEWEST = 400  # corrections that a head is fitted to, which bounds its time
_PENALTY = 0.8  # for each feature; chosen on the wards of docs/teaching.md, flat from 0.2 to 2.4
_BESIDE_KNOWN = 4.0  # times as much, where a field's classifier knows most of it already
_FOLDS = 5
_REPEATS = 3
_CHANCE = 0.05  # of passing by luck, for each of the two comparisons
_SIGNS = 4000
_LONGEST_ANSWER = 40  # characters
_NEVER = -30.0  # log-probability of an answer that no example had
_LEAST = 0.01  # probability that a classifier leaves to an answer, so that readers can overrule what a file states


@dataclass(frozen=True)
class Comparison:
    """What held-out corrections say about a head.

    Parameters
    ----------
    examples, studies : int
    head, base, majority : float
        Share of right answers: the head, the model's own, the commonest answer.
    head_balanced : float
        Mean over the answers of the head's share of right ones.
    p_base, p_majority : float
        Probability of so much more balanced accuracy by chance (one-sided test of the pairs).
    """

    examples: int
    studies: int
    head: float
    base: float
    majority: float
    head_balanced: float
    p_base: float
    p_majority: float

    @property
    def is_better(self) -> bool:
        """Whether the head is better than the model and than the commonest answer.

        In balanced accuracy it must be so beyond chance; in plain accuracy it must not be worse.
        """
        return self.beats_guessing and self.head >= self.base and self.p_base < _CHANCE

    @property
    def beats_guessing(self) -> bool:
        """Whether the head is better than the commonest answer, in the same two ways."""
        return self.head >= self.majority and self.p_majority < _CHANCE

    def is_better_than(self, text: str | None) -> bool:
        """Return whether the head may take the place of the model's text; a silent one need not be beaten."""
        return self.is_better or (text == CANNOT_TELL and self.beats_guessing)

    def told(self) -> str:
        """Return the comparison in words."""
        return (
            f"{100 * self.head:.0f} % right on {self.examples} held-out corrections, the model "
            f"{100 * self.base:.0f} %, always the commonest answer {100 * self.majority:.0f} %"
        )


@dataclass(frozen=True, eq=False)
class Head:
    """A classifier of one question's answers.

    Parameters
    ----------
    question : str
        In the words of the newest correction.
    answers : tuple of str
        In the readers' spelling.
    classifier : Logistic
    temperature : float
        Scales the log-probabilities, fitted on held-out corrections.
    compared : Comparison
    version : str
        12 hexadecimal digits over the corrections.
    corrections : tuple of str
        Ids of those it was fitted to.
    nearness : Nearness
    modalities : frozenset of str
        Of the studies it was fitted to, in lower case, as far as they are known.
    adds_to_known : bool
        Whether it adds to what a field's classifier knows.
    """

    question: str
    answers: tuple[str, ...]
    classifier: Logistic
    temperature: float
    compared: Comparison
    version: str
    corrections: tuple[str, ...]
    nearness: Nearness
    modalities: frozenset[str] = frozenset()
    adds_to_known: bool = False

    def knows(self, features: np.ndarray, modality: str | None = None) -> bool:
        """Return whether a study resembles those that the head was fitted to, also in its modality if known."""
        if modality and self.modalities and modality.lower() not in self.modalities:
            return False
        return self.nearness.holds(features)

    def answer(
        self, features: np.ndarray, known: Mapping[str, float] | None = None
    ) -> tuple[str, float]:
        """Return the likeliest answer and its calibrated probability.

        Parameters
        ----------
        features : float array, shape (D,)
        known : mapping of str to float, optional
            Probability of each answer, as far as a field's classifier knows it.
        """
        offset = _log_odds(known, self.answers) if self.adds_to_known else 0.0
        log_p = self.classifier.log_probabilities(features[None], offset) / self.temperature
        probability = np.exp(log_p[0] - np.logaddexp.reduce(log_p[0]))
        best = int(np.argmax(probability))
        return self.answers[best], float(probability[best])


@dataclass(frozen=True, eq=False)
class _Examples:
    rows: list[Correction]
    features: np.ndarray
    labels: np.ndarray
    answers: tuple[str, ...]
    groups: list[str]
    base_is_right: np.ndarray
    known: np.ndarray


def fit_head(
    rows: Sequence[Correction],
    features: Features,
    patient: Callable[[Correction], str | None] | None = None,
    modality: Callable[[Correction], str | None] | None = None,
    known: Known | None = None,
) -> Head | None:
    """Fit a head to the corrections of one question.

    Parameters
    ----------
    rows : sequence of Correction
        The newest text of each study, accepted answers among them.
    features : callable
        From a study's digest to its features.
    patient : callable, optional
        From a correction to its patient, whose studies are held out together; by default each study is held out
        alone.
    modality : callable, optional
        From a correction to its study's modality.
    known : callable, optional
        What a field's classifier knows of the answers. Its answer then is the one to beat.

    Returns
    -------
    Head or None
        None if the answers are no closed set or there are too few of them. `compared.is_better_than` says in whose
        place it may answer.
    """
    found = _examples(rows, features, patient, known)
    if found is None:
        return None
    span = Span.of(found.features)
    offset, held = _best_start(found, span.reduced)
    classes = len(found.answers)
    chosen = held.mean(0).argmax(1)
    is_right = chosen == found.labels
    weight = 1 / np.bincount(found.labels)[found.labels]
    is_commonest = found.labels == np.bincount(found.labels).argmax()
    compared = Comparison(
        examples=len(found.labels),
        studies=len(set(found.groups)),
        head=float(is_right.mean()),
        base=float(found.base_is_right.mean()),
        majority=float(is_commonest.mean()),
        head_balanced=float(
            np.mean([is_right[found.labels == each].mean() for each in range(classes)])
        ),
        p_base=_chance(is_right, found.base_is_right, weight),
        p_majority=_chance(is_right, is_commonest, weight),
    )
    classifier = span.fit(found.labels, classes, _penalty(found, offset), offset)
    modalities = [modality(row) for row in found.rows] if modality else []
    ids = tuple(row.id for row in found.rows)
    return Head(
        question=found.rows[-1].question or "",
        answers=found.answers,
        classifier=classifier,
        temperature=_temperature(held.reshape(-1, classes), np.tile(found.labels, len(held))),
        compared=compared,
        version=hashlib.sha256("\n".join(ids).encode("ascii")).hexdigest()[:12],
        corrections=ids,
        nearness=Nearness.of(found.features),
        modalities=frozenset(each.lower() for each in modalities if each),
        adds_to_known=bool(offset.any()),
    )


def closed_questions(rows: Sequence[Correction]) -> dict[Hashable, list[Correction]]:
    """Return the corrections by question, for the questions whose corrections may be a closed set."""
    by_question: dict[Hashable, list[Correction]] = {}
    for row in rows:
        if row.task == "vqa" and row.region is None and row.image_hash is not None:
            by_question.setdefault(question_key(row.task, row.question), []).append(row)
    return {key: some for key, some in by_question.items() if len(some) >= FEWEST}


def _examples(
    rows: Sequence[Correction],
    features: Features,
    patient: Callable[[Correction], str | None] | None,
    known: Known | None,
) -> _Examples | None:
    """Collect what a head is fitted to; answers that are too rare for a class are left out."""
    rows = rows[-_NEWEST:]
    short = [row for row in rows if row.image_hash and len(row.text) <= _LONGEST_ANSWER]
    counts = Counter(answer_key(row.text) for row in short)
    common = [answer for answer, count in counts.most_common() if count >= FEWEST_OF_A_CLASS]
    covered = sum(counts[answer] for answer in common)
    is_closed = 2 <= len(common) <= MOST_CLASSES and covered >= 0.9 * len(rows)
    if not is_closed or covered < FEWEST:
        return None
    kept, vectors = [], []
    for row in short:
        vector = features(row.image_hash or "") if answer_key(row.text) in common else None
        if vector is not None:
            kept.append(row)
            vectors.append(vector)
    numbers = {answer: number for number, answer in enumerate(common)}
    labels = np.array([numbers[answer_key(row.text)] for row in kept], dtype=int)
    if len(kept) < FEWEST or np.bincount(labels, minlength=len(common)).min() < FEWEST_OF_A_CLASS:
        return None
    spelling = {answer_key(row.text): row.text.strip() for row in kept}
    groups = [(patient(row) if patient else None) or row.image_hash or row.id for row in kept]
    answers = tuple(spelling[answer] for answer in common)
    told = [
        known(row.image_hash or "", row.question or "", answers) if known else None for row in kept
    ]
    base = [
        answer_key(_base(row, each)) == answer_key(row.text)
        for row, each in zip(kept, told, strict=True)
    ]
    offset = np.stack([_log_odds(each, answers) for each in told])
    return _Examples(kept, np.stack(vectors), labels, answers, groups, np.array(base), offset)


def _base(row: Correction, told: Mapping[str, float] | None) -> str:
    """Return the answer without a head: the classifier's, since the text that was judged may be an earlier head's."""
    return row.model_text if told is None else max(told, key=told.__getitem__)


def _log_odds(known: Mapping[str, float] | None, answers: Sequence[str]) -> np.ndarray:
    """Return log-probabilities less their mean, shape (K,); zeros where nothing is known."""
    if known is None:
        return np.zeros(len(answers))
    log_p = np.log(np.maximum([known[answer] for answer in answers], _LEAST))
    return np.asarray(log_p - log_p.mean())


def _penalty(found: _Examples, offset: np.ndarray) -> float:
    return _PENALTY * found.features.shape[1] * (_BESIDE_KNOWN if offset.any() else 1.0)


def _best_start(found: _Examples, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the offset, what is known or none, that is better on held-out corrections, and `_held_out` with it."""
    none = np.zeros_like(found.known)
    starts = [none, found.known] if found.known.any() else [none]
    held = [_held_out(found, features, start) for start in starts]
    weight = 1 / np.bincount(found.labels)[found.labels]
    likelihood = [
        float((each[:, np.arange(len(weight)), found.labels] @ weight).mean()) for each in held
    ]
    best = int(np.argmax(likelihood))
    return starts[best], held[best]


def _held_out(found: _Examples, features: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return log-probabilities of heads that were fitted without an example's patient, (repeats, N, K)."""
    classes, penalty = len(found.answers), _penalty(found, offset)
    names = sorted(set(found.groups))
    held = np.full((_REPEATS, len(found.labels), classes), _NEVER)
    for repeat in range(_REPEATS):
        order = np.random.default_rng(repeat).permutation(len(names))
        fold_of = dict(zip(names, (order % _FOLDS).tolist(), strict=True))
        folds = np.array([fold_of[group] for group in found.groups])
        for fold in range(_FOLDS):
            inside = folds != fold
            present, labels = np.unique(found.labels[inside], return_inverse=True)
            start = offset[:, present]
            weights, bias = fit(features[inside], labels, len(present), penalty, start[inside])
            log_p = log_softmax(features[~inside] @ weights + bias + start[~inside], axis=1)
            held[repeat][np.ix_(~inside, present)] = log_p
    return held


def _chance(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> float:
    """Return the probability that the first is right so much more often than the second by chance.

    A test of the pairs by random signs; every answer weighs the same, as in balanced accuracy.
    """
    gain = weight * (first.astype(float) - second.astype(float))
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (_SIGNS, len(gain)))
    return float((1 + (signs @ gain >= gain.sum() - 1e-9).sum()) / (1 + _SIGNS))


def _temperature(log_p: np.ndarray, labels: np.ndarray) -> float:
    """Fit a temperature to held-out log-probabilities (Guo et al., arXiv 1706.04599)."""

    def loss(log_temperature: float) -> float:
        scaled = log_p / np.exp(log_temperature)
        scaled = scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)
        return float(-scaled[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))
