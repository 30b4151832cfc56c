"""Training examples: corrections, and the base model's own answers to other questions about the same studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from radfound.correction import Correction
from radfound.engine.shown import Shown
from radfound.engine.transformers.backend import TransformersBackend
from radfound.engine.transformers.prompts import PicturesPart
from radfound.exceptions import RadFoundError
from radfound.question import Question
from radfound.study.study import Study
from training.corrections.learnable import REPLAY_QUESTIONS, by_view, nothing_to_learn, too_long
from training.vlm.pictures import ProcessedPictures

_REPLAY_TOKENS = 48


@dataclass(frozen=True, eq=False)
class Example:
    """A question about a study with its answer.

    Parameters
    ----------
    study : Study
    question : Question
    text : str
        The answer to learn, or to keep.
    inputs : dict of str to tensor
        What the model's forward takes, for the prompt with its answer.
    answer_tokens : int
        Number of tokens at the end that are the answer, stop token included: the loss is on these alone.
    correction : str
        Id of the correction; empty for replay.
    """

    study: Study
    question: Question
    text: str
    inputs: dict[str, torch.Tensor]
    answer_tokens: int
    correction: str = ""


@dataclass(frozen=True, eq=False)
class Examples:
    """All examples of a run.

    Parameters
    ----------
    corrections, replay : list of Example
    left_out : dict of str to str
        By id of a correction, why it is not used.
    """

    corrections: list[Example] = field(default_factory=list)
    replay: list[Example] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def examples_of(
    backend: TransformersBackend,
    corrections: Sequence[Correction],
    pictures: ProcessedPictures,
    replay_studies: int,
) -> Examples:
    """Return the examples of corrections, with replay.

    Raises
    ------
    TrainingError
        If no correction can be learnt from.
    """
    found = Examples()
    views = by_view(corrections)
    for number, some in enumerate(views):
        images, region = some[0].images, some[0].region
        try:
            study = pictures.study(images)
            prompt = pictures.of(images, region, study)
        except RadFoundError as error:
            found.left_out.update({each.id: str(error) for each in some})
            continue
        for each in some:
            question = Question(each.task, each.question, region=region)
            made = _example(backend, study, prompt, question, each.text.strip(), each.id)
            if reason := too_long(made.answer_tokens):
                found.left_out[each.id] = reason
            else:
                found.corrections.append(made)
        if len(views) - number <= replay_studies:
            for question in _others(some):
                if own := _own_answer(backend, study, question):
                    found.replay.append(_example(backend, study, prompt, question, own))
    if not found.corrections:
        raise nothing_to_learn(found.left_out)
    return found


def _others(some: Sequence[Correction]) -> list[Question]:
    """Return the questions of replay that no correction of a study is about."""
    corrected = {each.question for each in some}
    return [
        Question("vqa", text, region=some[0].region)
        for text in REPLAY_QUESTIONS
        if text not in corrected
    ]


def _example(
    backend: TransformersBackend,
    study: Study,
    prompt: tuple[PicturesPart, Shown],
    question: Question,
    text: str,
    correction: str = "",
) -> Example:
    part, shown = prompt
    rest = backend.prompts.rest(shown, question)
    answer = [*backend.prompts.answer(shown, question, text, rest), backend.stop_token]
    inputs = _lengthened(part.inputs, [*rest, *answer])
    return Example(study, question, text, inputs, len(answer), correction)


def _own_answer(backend: TransformersBackend, study: Study, question: Question) -> str:
    """Return the base model's answer; empty if it did not come to its end."""
    tokens = list(backend.stream(study, question, adapter=None, limit=_REPLAY_TOKENS))
    return "".join(each.text for each in tokens).strip() if tokens and tokens[-1].last else ""


def _lengthened(inputs: dict[str, torch.Tensor], ids: Sequence[int]) -> dict[str, torch.Tensor]:
    """Append text tokens to the inputs of a prompt; the marks of pictures get zeros."""
    length = inputs["input_ids"].shape[1]
    more = torch.tensor([list(ids)])
    found = {}
    for name, value in inputs.items():
        if name == "input_ids":
            value = torch.cat([value, more], dim=1)
        elif value.shape[:2] == (1, length) and value.ndim == 2:
            value = torch.cat([value, torch.zeros_like(more, dtype=value.dtype)], dim=1)
        found[name] = value
    return found
