"""Run a model on the tasks of RadVLBench, with and without the image.

Every study and its blank copy is encoded once. Answers are generated in batches of prompts of similar length.
Equal prompts with equal visual tokens, as for blank images, are answered once.
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
    """Answers to a task.

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
    """Show no progress."""
    yield lambda count: None


def run_tasks(
    model: StudyModel, tasks: Sequence[Task], seed: int = 0, progress: Progress = no_progress
) -> list[Run]:
    """Return the answers of a model and of its controls.

    Parameters
    ----------
    model : StudyModel
    tasks : sequence of Task
    seed : int
        Seed of the swap of images between patients.
    progress : callable, optional
        Takes a label and the number of steps; returns a context manager of a callable that counts steps.
    """
    examples = [_studies(task.items) for task in tasks]
    encoded, blank = _encode(model, [e for studies in examples for e in studies], progress)
    asks: list[_Ask] = []
    for task, studies in zip(tasks, examples, strict=True):
        other = dict(zip(map(id, studies), other_patients(studies, seed), strict=True))
        for item in task.items:
            name = id(item.example)
            swapped = encoded[id(studies[other[name]])]
            for visual in (encoded[name], blank[name], swapped):
                asks.append(_Ask(visual, item.prompt, task.max_new_tokens))
    generated = _generate(model, asks, progress)
    runs = []
    for task in tasks:
        count = 3 * len(task.items)
        runs.append(_run(task, generated[:count], progress))
        generated = generated[count:]
    return runs


def ask_items(
    model: StudyModel, items: Sequence[Item], limit: int, progress: Progress = no_progress
) -> list[Generated]:
    """Return the model's answers, without controls."""
    encoded, _ = _encode(model, _studies(items), progress, with_blank=False)
    return _generate(
        model, [_Ask(encoded[id(item.example)], item.prompt, limit) for item in items], progress
    )


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


def probability(answer: Generated) -> float:
    """Return an answer's length-normalised probability; 0 for an empty one."""
    return length_normalised_probability(answer.log_probabilities) or 0.0


def _studies(items: Sequence[Item]) -> list[Example]:
    return list({id(item.example): item.example for item in items}.values())


def _encode(
    model: StudyModel, examples: Sequence[Example], progress: Progress, with_blank: bool = True
) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
    by_example, blank = {}, {}
    encoded: dict[tuple[Any, ...], tuple[torch.Tensor, torch.Tensor | None]] = {}
    with progress("encoding studies", len(examples)) as advance:
        for example in examples:
            name = (example.files, example.footer, repr(example.region))
            if name not in encoded:
                study = example.read()
                empty = model.encode(blanked(study), example.region) if with_blank else None
                encoded[name] = model.encode(study, example.region), empty
            by_example[id(example)], blank[id(example)] = encoded[name]
            advance(1)
    return by_example, blank


def _generate(model: StudyModel, asks: Sequence[_Ask], progress: Progress) -> list[Generated]:
    names = [ask.name for ask in asks]
    distinct = dict(zip(names, asks, strict=True))
    # Long answers first, so that the remaining time is over- rather than underestimated.
    order = sorted(
        distinct, key=lambda name: (-distinct[name].limit, len(name[2] or ""), name[2] or "", name)
    )
    generated: dict[Any, Generated] = {}
    with progress("answering", len(order)) as advance:
        while order:
            limit = distinct[order[0]].limit
            chunk = [name for name in order[:BATCH] if distinct[name].limit == limit]
            order = order[len(chunk) :]
            batch = [distinct[name] for name in chunk]
            answers = model.generate([a.encoded for a in batch], [a.prompt for a in batch], limit)
            generated.update(zip(chunk, answers, strict=True))
            advance(len(chunk))
    return [generated[name] for name in names]
