"""Run a model on the tasks of RadVLBench, with and without the image.

Every study is loaded once, and many questions are asked at once, which the backend may answer in batches. Equal
questions about equal studies, as about blank images, are asked once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from radfound.benchmark.controls import blanked, majority_answers, other_patients
from radfound.benchmark.kept_answers import KeptAnswers
from radfound.benchmark.probe import image_features, probe_answers
from radfound.benchmark.tasks import Item, Task
from radfound.datasets import Example
from radfound.engine.confidence import length_normalised_probability
from radfound.engine.generated import AT_ONCE, Ask, Generated, generate
from radfound.engine.protocol import Backend
from radfound.question import Question
from radfound.study.study import Study

MODEL, MAJORITY, BLANK, OTHER, PROBE = "model", "majority", "blank", "other", "probe"

Progress = Callable[[str, int], Any]


@dataclass(frozen=True)
class Run:
    """Answers to a task.

    Parameters
    ----------
    task : Task
    answers : dict of str to list of str
        By "model", "majority", "blank", "other" and, for metadata, "probe"; in the order of the items.
    probabilities : list of float or None
        The model's length-normalised probability of each of its answers; None if the backend does not know it.
    """

    task: Task
    answers: dict[str, list[str]]
    probabilities: list[float | None]


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
    views = _Views()
    for task in tasks:
        studies = _studies(task.items)
        other = dict(zip(map(id, studies), other_patients(studies, seed), strict=True))
        for item in task.items:
            limit = task.max_new_tokens
            views.add(item, item.example, limit)
            views.add(item, item.example, limit, is_blank=True)
            views.add(item, studies[other[id(item.example)]], limit)
    generated = _generate(backend, views, progress, adapter, at_once, kept)
    runs = []
    for task in tasks:
        count = 3 * len(task.items)
        runs.append(_run(task, generated[:count], progress))
        generated = generated[count:]
    return runs


def ask_items(
    backend: Backend, items: Sequence[Item], limit: int, progress: Progress = no_progress
) -> list[Generated]:
    """Return the model's answers, without controls."""
    views = _Views()
    for item in items:
        views.add(item, item.example, limit)
    return _generate(backend, views, progress)


def _run(task: Task, generated: Sequence[Generated], progress: Progress) -> Run:
    texts = [answer.text.strip() for answer in generated]
    answers = {
        MODEL: texts[::3],
        MAJORITY: majority_answers(task.items, task.training),
        BLANK: texts[1::3],
        OTHER: texts[2::3],
    }
    if task.name == "metadata":
        count = len(_studies((*task.training, *task.items)))
        with progress("ImageNet features", count) as advance:
            answers[PROBE] = probe_answers(
                task.items, task.training, lambda examples: image_features(examples, advance)
            )
    return Run(task, answers, [probability(answer) for answer in generated[::3]])


def probability(answer: Generated) -> float | None:
    """Return an answer's length-normalised probability; 0 for an empty one, None if it is not known."""
    if answer.log_probabilities is None:
        return None
    return length_normalised_probability(answer.log_probabilities) or 0.0


def _studies(items: Sequence[Item]) -> list[Example]:
    return list({id(item.example): item.example for item in items}.values())


def _generate(
    backend: Backend,
    views: _Views,
    progress: Progress,
    adapter: str | None = None,
    at_once: int = AT_ONCE,
    kept: KeptAnswers | None = None,
) -> list[Generated]:
    keys = [""] * views.count
    answers: dict[str, Generated | None] = {}
    asked: deque[str] = deque()

    def asks(advance: Callable[[int], None]) -> Iterator[Ask]:
        for view in views.by_files.values():
            study = view.example.read()
            blank = blanked(study) if any(part[-1] for part in view.questions) else study
            names = {False: study.digest, True: _name_of_blank(backend, blank, view.example)}
            for number, question, limit, is_blank in view.questions:
                keys[number] = key = KeptAnswers.key(names[is_blank], question, limit)
                if key in answers:
                    continue
                answers[key] = None if kept is None else kept.get(key)
                if answers[key] is None:
                    asked.append(key)
                    yield Ask(blank if is_blank else study, question, limit)
            advance(1)

    with progress("answering", len(views.by_files)) as advance:
        for answer in generate(backend, asks(advance), adapter=adapter, at_once=at_once):
            key = asked.popleft()
            answers[key] = answer
            if kept is not None:
                kept.add(key, answer)
    return [found for key in keys if (found := answers[key]) is not None]


def _name_of_blank(backend: Backend, blank: Study, example: Example) -> Hashable:
    """Return a name that is equal for blank studies that look alike to the model.

    Blank images of all sizes have few different embeddings, so most questions about them are asked once.
    """
    if example.region is None and backend.describe().abilities.embed:
        return backend.embed(blank).tobytes()
    return blank.digest
