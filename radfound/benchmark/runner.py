"""Asking a model everything that RadVLBench asks, and the same without the image.

Every study is read once, its blank copy too. Answers are written in batches of prompts of like length; a
prompt that stands twice before the same visual tokens, as those before a blank image do, is answered once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from radfound.benchmark.controls import blanked, majority_answers, other_patients
from radfound.benchmark.probe import image_features, probe_answers
from radfound.benchmark.tasks import Item, Task
from radfound.datasets import Example
from radfound.engine.confidence import length_normalised_probability
from radfound.engine.local.backend import Generated, Prompt, StudyModel

BATCH = 32
MODEL, MAJORITY, BLANK, OTHER, PROBE = "model", "majority", "blank", "other", "probe"

Progress = Callable[[str, int], Any]


@dataclass(frozen=True)
class Run:
    """A task's answers.

    Parameters
    ----------
    task : Task
    answers : dict of str to list of str
        By "model", "majority", "blank", "other" and, for metadata, "probe"; in the order of the items.
    probabilities : list of float
        The model's length-normalised probability of each of its answers.
    """

    task: Task
    answers: dict[str, list[str]]
    probabilities: list[float]


@dataclass(frozen=True)
class _Ask:
    encoded: torch.Tensor
    prompt: Prompt
    limit: int

    @property
    def name(self) -> tuple[str, str, str | None, int]:
        tokens = self.encoded.detach().float().cpu().numpy().tobytes()
        digest = hashlib.sha256(tokens).hexdigest()
        return digest, self.prompt.task, self.prompt.question, self.limit


@contextmanager
def no_progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Count nothing."""
    yield lambda count: None


def run_tasks(
    model: StudyModel, tasks: Sequence[Task], seed: int = 0, progress: Progress = no_progress
) -> list[Run]:
    """Return all answers of a model, and those of its controls.

    Parameters
    ----------
    model : StudyModel
    tasks : sequence of Task
    seed : int
        Of who gets which other patient's image.
    progress : callable, optional
        From what is done and how many steps it has to a context that gives a callable to count them.
    """
    examples = [_studies(task.items) for task in tasks]
    seen, blank = _encode(model, [e for some in examples for e in some], progress)
    asks: list[_Ask] = []
    for task, some in zip(tasks, examples, strict=True):
        other = dict(zip(map(id, some), other_patients(some, seed), strict=True))
        for item in task.items:
            name = id(item.example)
            for encoded in (seen[name], blank[name], seen[id(some[other[name]])]):
                asks.append(_Ask(encoded, item.prompt, task.max_new_tokens))
    written = _generate(model, asks, progress)
    runs = []
    for task in tasks:
        mine, written = written[: 3 * len(task.items)], written[3 * len(task.items) :]
        runs.append(_run(task, mine, progress))
    return runs


def ask_items(
    model: StudyModel, items: Sequence[Item], limit: int, progress: Progress = no_progress
) -> list[Generated]:
    """Return the model's answers alone, without controls."""
    seen, _ = _encode(model, _studies(items), progress, with_blank=False)
    return _generate(
        model, [_Ask(seen[id(item.example)], item.prompt, limit) for item in items], progress
    )


def _run(task: Task, written: Sequence[Generated], progress: Progress) -> Run:
    texts = [answer.text.strip() for answer in written]
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
    return Run(task, answers, [probability(answer) for answer in written[::3]])


def probability(answer: Generated) -> float:
    """Return an answer's length-normalised probability; 0 for an empty one."""
    return length_normalised_probability(answer.log_probabilities) or 0.0


def _studies(items: Sequence[Item]) -> list[Example]:
    return list({id(item.example): item.example for item in items}.values())


def _encode(
    model: StudyModel, examples: Sequence[Example], progress: Progress, with_blank: bool = True
) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
    seen, blank = {}, {}
    read: dict[tuple[Any, ...], tuple[torch.Tensor, torch.Tensor | None]] = {}
    with progress("reading studies", len(examples)) as advance:
        for example in examples:
            name = (example.files, example.footer, repr(example.region))
            if name not in read:
                study = example.read()
                empty = model.encode(blanked(study), example.region) if with_blank else None
                read[name] = model.encode(study, example.region), empty
            seen[id(example)], blank[id(example)] = read[name]
            advance(1)
    return seen, blank


def _generate(model: StudyModel, asks: Sequence[_Ask], progress: Progress) -> list[Generated]:
    names = [ask.name for ask in asks]
    distinct = dict(zip(names, asks, strict=True))
    # Long answers first: the time left is then over- and not underestimated.
    order = sorted(
        distinct, key=lambda name: (-distinct[name].limit, len(name[2] or ""), name[2] or "", name)
    )
    written: dict[Any, Generated] = {}
    with progress("answering", len(order)) as advance:
        while order:
            limit = distinct[order[0]].limit
            some = [name for name in order[:BATCH] if distinct[name].limit == limit]
            order = order[len(some) :]
            batch = [distinct[name] for name in some]
            said = model.generate([a.encoded for a in batch], [a.prompt for a in batch], limit)
            written.update(zip(some, said, strict=True))
            advance(len(some))
    return [written[name] for name in names]
