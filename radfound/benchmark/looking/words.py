"""Answers from the words of a question alone: how far a data set can be answered without any picture.

Two predictors, fitted to training questions of the same source and group ("closed", "open"): logistic regression on
TF-IDF of words and pairs of words, and the answer to the nearest training question. Neither is given a picture.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np

from radfound.benchmark.scoring.metrics import (
    closed_match,
    normalised,
    parts_of_mean,
    ratio,
    token_recall,
)
from radfound.benchmark.scoring.statistics import bootstrap
from radfound.benchmark.tasks import Item, is_new, pictures_of
from radfound.optional import library

FOLDS = 10
_INVERSE_PENALTY = 10.0  # C of the regression, chosen on VQA-RAD's test split itself: in its favour
_FEWEST_OF_ANSWER = 2  # an answer that was given once is not learnt as a class


class WordPredictors:
    """Both predictors of one group of questions.

    Parameters
    ----------
    training : sequence of Item
        At least one.
    """

    def __init__(self, training: Sequence[Item]):
        text = library("sklearn.feature_extraction.text", "bench")
        self._vectors = text.TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"
        )
        wordings = [
            (wording, item.turn.answer) for item in training for wording in item.turn.questions
        ]
        self._known = self._vectors.fit_transform([wording for wording, _ in wordings])
        self._answers = [answer for _, answer in wordings]

    def nearest(self, questions: Sequence[str]) -> list[str]:
        """Return the answer to the nearest training question, by cosine similarity; the first one at a tie."""
        similarity = self._vectors.transform(questions) @ self._known.T
        return [self._answers[k] for k in np.asarray(similarity.argmax(axis=1)).ravel()]

    def regression(self, questions: Sequence[str]) -> list[str]:
        """Return the most probable answer by logistic regression."""
        model, spelling = self._fitted
        if model is None:
            return [spelling] * len(questions)
        return [spelling[name] for name in model.predict(self._vectors.transform(questions))]

    def sure_regression(self, questions: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """Return the most probable answers, and their probabilities, shape (N,)."""
        model, _ = self._fitted
        if model is None:
            return self.regression(questions), np.ones(len(questions))
        chances = model.predict_proba(self._vectors.transform(questions))
        return self.regression(questions), chances.max(axis=1)

    @cached_property
    def _fitted(self) -> tuple[Any, Any]:
        """The regression, and a spelling of each class; None and the commonest answer if there is but one class."""
        names = [normalised(answer) for answer in self._answers]
        counts = Counter(names)
        rows = [k for k, name in enumerate(names) if counts[name] >= _FEWEST_OF_ANSWER]
        spelling = {
            normalised(answer): answer
            for answer, _ in reversed(Counter(self._answers).most_common())
        }
        if len({names[k] for k in rows}) < 2:
            return None, spelling[counts.most_common(1)[0][0]]
        model = library("sklearn.linear_model", "bench").LogisticRegression(
            C=_INVERSE_PENALTY, max_iter=1000
        )
        return model.fit(self._known[rows], [names[k] for k in rows]), spelling


def word_answers(items: Sequence[Item], training: Sequence[Item]) -> tuple[list[str], list[str]]:
    """Return the regression's and the nearest question's answers.

    Training questions about the pictures of items whose picture is not in the model's training are left out for
    these, so that model and predictors are compared on pictures that are new to both.
    """
    new_pictures = pictures_of(item.example for item in items if is_new(item))
    of_kind: dict[Hashable, list[Item]] = defaultdict(list)
    for item in training:
        of_kind[item.example.source, item.group].append(item)
    answers: tuple[list[str], list[str]] = ([""] * len(items), [""] * len(items))
    places: dict[tuple[str, str, bool], list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        places[item.example.source, item.group, is_new(item)].append(place)
    for (source, group, new), rows in places.items():
        known = of_kind[source, group]
        if new:
            known = [item for item in known if not pictures_of([item.example]) & new_pictures]
        if not known:
            continue
        predictors = WordPredictors(known)
        questions = [items[k].question.text or "" for k in rows]
        for k, first, second in zip(
            rows, predictors.regression(questions), predictors.nearest(questions), strict=True
        ):
            answers[0][k], answers[1][k] = first, second
    return answers


def image_disjoint(items: Sequence[Item], seed: int = 0) -> list[dict[str, Any]]:
    """Score both predictors by cross-validation in `FOLDS` folds that share no picture.

    Parameters
    ----------
    items : sequence of Item
        Questions of one source, of all its splits.
    seed : int
        Of the bootstrap over pictures.

    Returns
    -------
    list of dict
        "row", "score", "n", "percent" and the intervals "words" and "nearest".
    """
    folds = [_fold(item) for item in items]
    answers = [("", "")] * len(items)
    for fold in sorted(set(folds)):
        for group in ("closed", "open"):
            held = [k for k, item in enumerate(items) if folds[k] == fold and item.group == group]
            known = [
                item for k, item in enumerate(items) if folds[k] != fold and item.group == group
            ]
            if not held or not known:
                continue
            predictors = WordPredictors(known)
            questions = [items[k].question.text or "" for k in held]
            found = zip(
                predictors.regression(questions), predictors.nearest(questions), strict=True
            )
            for k, pair in zip(held, found, strict=True):
                answers[k] = pair
    rows = []
    for name, score, wanted in (
        ("closed", "accuracy", lambda item: item.group == "closed"),
        (
            "closed, yes or no",
            "accuracy",
            lambda item: normalised(item.turn.answer) in ("yes", "no"),
        ),
        ("open", "token recall", lambda item: item.group == "open"),
    ):
        mine = [k for k, item in enumerate(items) if wanted(item)]
        if not mine:
            continue
        compare = token_recall if score == "token recall" else closed_match
        row: dict[str, Any] = {"row": name, "score": score, "n": len(mine), "percent": True}
        for column, name_of in enumerate(("words", "nearest")):
            parts = parts_of_mean([compare(answers[k][column], items[k].turn.answer) for k in mine])
            clusters = [_picture(items[k]) for k in mine]
            row[name_of] = asdict(bootstrap(ratio, parts, clusters, seed=seed))
        rows.append(row)
    return rows


def _picture(item: Item) -> str:
    return min(pictures_of([item.example]))


def _fold(item: Item) -> int:
    return int(hashlib.sha256(_picture(item).encode()).hexdigest(), 16) % FOLDS
