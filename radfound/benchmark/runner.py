"""Run a model on the tasks of RadVLBench, with and without the image.

Every study is loaded once, and many questions are asked at once, which the backend may answer in batches. Equal
questions about equal studies, as about blank images, are asked once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from radfound.benchmark.controls import (
    alike_patients,
    majority_answers,
    other_patients,
    picture_labels,
)
from radfound.benchmark.kept_answers import KeptAnswers
from radfound.benchmark.looking.words import word_answers
from radfound.benchmark.probe import image_features, probe_answers
from radfound.benchmark.tasks import TRAINED, Item, Task, studies_of
from radfound.datasets import Example
from radfound.engine.confidence import length_normalised_probability
from radfound.engine.generated import AT_ONCE, Ask, Generated, generate
from radfound.engine.protocol import Backend
from radfound.exceptions import RequestError
from radfound.question import Question
from radfound.study.study import Study

MODEL, MAJORITY, PROBE = "model", "majority", "probe"
BLANK, OTHER, ALIKE = "blank", "other", "alike"
WORDS, NEAREST = "words", "nearest"
# The columns that a model is asked for, in order. Long texts take most of the time and have the hardest control only.
_ASKED = (MODEL, BLANK, ALIKE, OTHER)
_ASKED_OF_TEXTS = (MODEL, BLANK, ALIKE)

_NOT_ANSWERED = Generated("", None, None, False)
_MOST_REFUSED = 20  # so many refused questions before the first answer end the run

Progress = Callable[[str, int], Any]


@dataclass(frozen=True)
class Run:
    """Answers to a task.

    Parameters
    ----------
    task : Task
    answers : dict of str to list of str
        By column, in the order of the items: "model", its controls "blank", "alike" and, but for texts, "other"; except
        for trained questions "majority"; for metadata "probe"; for vqa "words" and "nearest".
    probabilities : list of float or None
        The model's length-normalised probability of each of its answers; None if the backend does not know it.
    alike : dict of str to int
        How alike the other patients of "alike" are, by `controls.LIKENESS`.
    refused : dict of str to str
        Why the model could not be asked about an item, by its id.
    """

    task: Task
    answers: dict[str, list[str]]
    probabilities: list[float | None]
    alike: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _View:
    """A study as it is shown, with the questions about it.

    Parameters
    ----------
    example : Example
        With files and region.
    questions : list of (int, Question, int, bool)
        Number of the answer, question, token limit, and whether the blank copy is shown.
    """

    example: Example
    questions: list[tuple[int, Question, int, bool]] = field(default_factory=list)


class _Views:
    """Questions grouped by the study that they are asked about, so that each study is loaded once."""

    def __init__(self) -> None:
        self.by_files: dict[Hashable, _View] = {}
        self.count = 0

    def add(self, item: Item, shown: Example, limit: int, is_blank: bool = False) -> None:
        """Add the question of an item about a study, which may be another patient's."""
        name = shown.files, shown.footer, shown.region
        question = replace(item.question, region=shown.region)
        view = self.by_files.setdefault(name, _View(shown))
        view.questions.append((self.count, question, limit, is_blank))
        self.count += 1


@contextmanager
def no_progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show no progress."""
    yield lambda count: None


def run_tasks(
    backend: Backend,
    tasks: Sequence[Task],
    seed: int = 0,
    progress: Progress = no_progress,
    *,
    adapter: str | None = None,
    at_once: int = AT_ONCE,
    kept: KeptAnswers | None = None,
) -> list[Run]:
    """Return the answers of a model and of its controls.

    Parameters
    ----------
    backend : Backend
    tasks : sequence of Task
    seed : int
        Seed of the swap of images between patients.
    progress : callable, optional
        Takes a label and the number of steps; returns a context manager of a callable that counts steps.
    adapter : str, optional
        An id given to `use_adapter`.
    at_once : int
        Most questions that the backend has at the same time.
    kept : KeptAnswers, optional
        Answers of the same run before it was ended; new ones are added.
    """
    views, alike, labels = _Views(), [], picture_labels()
    for task in tasks:
        studies = studies_of(task.items)
        other = dict(zip(map(id, studies), other_patients(studies, seed), strict=True))
        similar, likeness = alike_patients(task.items, labels, seed)
        alike.append(likeness)
        for item, twin in zip(task.items, similar, strict=True):
            limit = task.max_new_tokens
            shown = {
                MODEL: item.example,
                BLANK: item.example,
                ALIKE: twin,
                OTHER: studies[other[id(item.example)]],
            }
            for column in _asked(task):
                views.add(item, shown[column], limit, is_blank=column == BLANK)
    generated, refused = _generate(backend, views, progress, adapter, at_once, kept)
    runs, start = [], 0
    for task, likeness in zip(tasks, alike, strict=True):
        columns = len(_asked(task))
        end = start + columns * len(task.items)
        run = _run(task, generated[start:end], progress)
        problems = {
            task.items[(k - start) // columns].id: why
            for k, why in refused.items()
            if start <= k < end
        }
        runs.append(replace(run, alike=dict(likeness), refused=problems))
        start = end
    return runs


def ask_items(
    backend: Backend, items: Sequence[Item], limit: int, progress: Progress = no_progress
) -> list[Generated]:
    """Return the model's answers, without controls."""
    views = _Views()
    for item in items:
        views.add(item, item.example, limit)
    generated, refused = _generate(backend, views, progress)
    if refused:
        raise RequestError(next(iter(refused.values())))
    return generated


def _asked(task: Task) -> tuple[str, ...]:
    return _ASKED_OF_TEXTS if task.name in ("caption", "report") else _ASKED


def _run(task: Task, generated: Sequence[Generated], progress: Progress) -> Run:
    texts = [answer.text.strip() for answer in generated]
    columns = _asked(task)
    answers = {column: texts[place :: len(columns)] for place, column in enumerate(columns)}
    if task.name != TRAINED:
        answers[MAJORITY] = majority_answers(task.items, task.training)
    if task.name == "vqa":
        answers[WORDS], answers[NEAREST] = word_answers(task.items, task.published)
    if task.name == "metadata":
        studies = len(studies_of((*task.training, *task.items)))
        with progress("ImageNet features", studies) as advance:
            answers[PROBE] = probe_answers(
                task.items, task.training, lambda examples: image_features(examples, advance)
            )
    return Run(task, answers, [probability(answer) for answer in generated[:: len(columns)]])


def probability(answer: Generated) -> float | None:
    """Return an answer's length-normalised probability; 0 for an empty one, None if it is not known."""
    if answer.log_probabilities is None:
        return None
    return length_normalised_probability(answer.log_probabilities) or 0.0


def _generate(
    backend: Backend,
    views: _Views,
    progress: Progress,
    adapter: str | None = None,
    at_once: int = AT_ONCE,
    kept: KeptAnswers | None = None,
) -> tuple[list[Generated], dict[int, str]]:
    """Return the answers in the order of the questions, and why some could not be asked, by their place."""
    asked = _Asked(backend, views, kept)
    with progress("answering", len(views.by_files)) as advance:
        for answer in generate(
            backend, asked.each(advance), adapter=adapter, at_once=at_once, refused=asked.refuse
        ):
            asked.take(answer)
    return asked.answers(), asked.problems()


class _Asked:
    """Asks the questions of the views, equal ones once, and collects the answers.

    Parameters
    ----------
    backend : Backend
    views : _Views
    kept : KeptAnswers or None
    """

    def __init__(self, backend: Backend, views: _Views, kept: KeptAnswers | None):
        self._backend, self._views, self._kept = backend, views, kept
        self._keys = [""] * views.count
        self._answers: dict[str, Generated | None] = {}
        self._problems: dict[str, str] = {}
        self._open: deque[str] = deque()
        self._answered = 0

    def each(self, advance: Callable[[int], None]) -> Iterator[Ask]:
        """Yield each question that has no answer yet."""
        for view in self._views.by_files.values():
            study = view.example.read()
            blank = study.blanked() if any(part[-1] for part in view.questions) else study
            names = {False: study.digest, True: _name_of_blank(self._backend, blank, view.example)}
            for number, question, limit, is_blank in view.questions:
                self._keys[number] = key = KeptAnswers.key(names[is_blank], question, limit)
                if key in self._answers:
                    continue
                self._answers[key] = None if self._kept is None else self._kept.get(key)
                if self._answers[key] is None:
                    self._open.append(key)
                    yield Ask(blank if is_blank else study, question, limit)
            advance(1)

    def refuse(self, error: RequestError) -> Generated:
        """Note why the next answer is missing; a model that answers nothing at all raises the error."""
        self._problems[self._open[0]] = str(error)
        if not self._answered and len(self._problems) >= _MOST_REFUSED:
            raise error
        return _NOT_ANSWERED

    def take(self, answer: Generated) -> None:
        """Take the answer to the next question, also one that `refuse` gave."""
        key = self._open.popleft()
        self._answers[key] = answer
        if key in self._problems:
            return
        self._answered += 1
        if self._kept is not None:
            self._kept.add(key, answer)

    def answers(self) -> list[Generated]:
        """Return the answers in the order of the questions."""
        return [found for key in self._keys if (found := self._answers[key]) is not None]

    def problems(self) -> dict[int, str]:
        """Return why questions could not be asked, by their place."""
        return {n: self._problems[key] for n, key in enumerate(self._keys) if key in self._problems}


def _name_of_blank(backend: Backend, blank: Study, example: Example) -> Hashable:
    """Return a name that is equal for blank studies that look alike to the model.

    Blank images of all sizes have few different embeddings, so most questions about them are asked once.
    """
    if example.region is None and backend.describe().abilities.embed:
        return backend.embed(blank).tobytes()
    return blank.digest
