"""The base model's own answers about corrected studies: each is generated once, and they are kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from radfound.engine.local.model import LocalModel
from radfound.question import Question
from training.corrections.frozen.kept import Kept, digest_of, key_of

_AT_ONCE = 64  # answers: the longest one of a batch takes as many steps as the batch
_COMPLETE, _CUT = 1, 0  # first byte of a kept answer


class OwnAnswers:
    """Generates answers of the base model, or finds those of earlier runs.

    A question is kept as its digest only, and a file holds the answers that the newest run asked for: nothing of a
    withdrawn correction stays.

    Parameters
    ----------
    base : LocalModel
        Without an adapter.
    kept : Kept, optional
    """

    def __init__(self, base: LocalModel, kept: Kept | None = None):
        self._base = base
        self.kept = kept or Kept(None, "own answers", 0)

    def of(
        self,
        visual: Sequence[torch.Tensor],
        questions: Sequence[Question],
        limit: int,
    ) -> list[str | None]:
        """Return the text of each answer; None where it was not complete within the limit.

        Parameters
        ----------
        visual : sequence of tensor, shape (1, T, width)
            Of the study of each question; a tensor may occur several times.
        questions : sequence of Question
        limit : int
            In tokens.
        """
        files = {id(each): self._key(each, limit) for each in visual}
        found = {key: self._read(key) for key in dict.fromkeys(files.values())}
        places = [
            (files[id(study)], _name(question))
            for study, question in zip(visual, questions, strict=True)
        ]
        missing = [n for n, (key, name) in enumerate(places) if name not in found[key]]
        generated = self._base.generate(
            [visual[n] for n in missing], [questions[n] for n in missing], limit, _AT_ONCE
        )
        for number, answer in zip(missing, generated, strict=True):
            key, name = places[number]
            found[key][name] = answer.text.strip() if answer.complete else None
        changed = {places[number][0] for number in missing}
        for key, answers in found.items():
            asked = {name for each, name in places if each == key}
            if key in changed or asked != answers.keys():
                self.kept.put(key, {name: _packed(answers[name]) for name in asked})
        return [found[key][name] for key, name in places]

    def _key(self, visual: torch.Tensor, limit: int) -> str:
        base = self._base
        return key_of(base.name, base.revision, str(base.model.dtype), limit, digest_of([visual]))

    def _read(self, key: str) -> dict[str, str | None]:
        try:
            return {name: _unpacked(each) for name, each in (self.kept.get(key) or {}).items()}
        except ValueError:
            self.kept.drop(key)
            return {}


def _name(question: Question) -> str:
    return hashlib.sha256(f"{question.task}\n{question.text or ''}".encode()).hexdigest()[:32]


def _packed(answer: str | None) -> torch.Tensor:
    content = bytes([_CUT]) if answer is None else bytes([_COMPLETE]) + answer.encode()
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _unpacked(kept: torch.Tensor) -> str | None:
    """Return a kept answer; ValueError if it is none."""
    content = bytes(kept.to(torch.uint8).flatten().tolist())
    if not content or content[0] not in (_CUT, _COMPLETE):
        raise ValueError("not an answer")
    return None if content[0] == _CUT else content[1:].decode("utf-8")
