"""Training examples: corrections, and the base model's own answers to other questions about the same studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from radfound.correction import Correction
from radfound.datasets.metadata import METADATA_QUESTIONS
from radfound.engine.transformers.backend import TransformersBackend
from radfound.exceptions import RadFoundError, TrainingError
from radfound.question import Question
from radfound.study.region import region_key
from radfound.study.study import Study
from training.vlm.pictures import ProcessedPictures

LONGEST_ANSWER = 256  # tokens
_REPLAY_QUESTIONS = tuple(wordings[0] for wordings in METADATA_QUESTIONS.values())
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
    by_view: dict[tuple[tuple[str, ...], str | None], list[Correction]] = {}
    for each in corrections:
        by_view.setdefault((each.images, region_key(each.region)), []).append(each)
    views = list(by_view.items())
    for number, ((images, _), some) in enumerate(views):
        region = some[0].region
        try:
            study = pictures.study(images)
            part, shown = pictures.of(images, region, study)
        except RadFoundError as error:
            found.left_out.update({each.id: str(error) for each in some})
            continue
        asked = [
            (Question(each.task, each.question, region=region), each.text.strip(), each.id)
            for each in some
        ]
        if len(views) - number <= replay_studies:
            corrected = {each.question for each in some}
            for text in _REPLAY_QUESTIONS:
                question = Question("vqa", text, region=region)
                if text not in corrected and (own := _own_answer(backend, study, question)):
                    asked.append((question, own, ""))
        for question, text, correction in asked:
            rest = backend.prompts.rest(shown, question)
            answer = [*backend.prompts.answer(shown, question, text, rest), backend.stop_token]
            if correction and len(answer) > LONGEST_ANSWER:
                found.left_out[correction] = (
                    f"text: {len(answer)} tokens; answers of at most {LONGEST_ANSWER} can be learnt"
                )
                continue
            inputs = _lengthened(part.inputs, [*rest, *answer])
            example = Example(study, question, text, inputs, len(answer), correction)
            (found.corrections if correction else found.replay).append(example)
    if not found.corrections:
        reasons = "; ".join(sorted(set(found.left_out.values()))[:3])
        raise TrainingError(f"corrections: none can be learnt from ({reasons})")
    return found


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
