"""Prompts as the model's own processor makes them, cut after the last picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from radfound.engine.chat import Message, conversation
from radfound.engine.recipes import Recipe
from radfound.engine.shown import Picture, Shown
from radfound.exceptions import CheckpointError, RequestError
from radfound.question import Question

_BLANK = Picture(np.zeros((64, 64, 3), np.uint8), "blank", 0)


@dataclass(frozen=True, eq=False)
class PicturesPart:
    """A prompt up to its last picture: what all questions about a study share.

    Parameters
    ----------
    inputs : dict of str to tensor
        What the model's forward takes.
    ids : tuple of int
    """

    inputs: dict[str, torch.Tensor]
    ids: tuple[int, ...]


class Prompts:
    """Makes a model's prompts.

    Parameters
    ----------
    processor : ProcessorMixin
    recipe : Recipe
    image_token : int
        The token that stands for a part of a picture.
    """

    def __init__(self, processor: Any, recipe: Recipe, image_token: int):
        self._processor = processor
        self._recipe = recipe
        self._image_token = image_token

    def pictures_part(self, shown: Shown, question: Question) -> tuple[PicturesPart, list[int]]:
        """Return the prompt up to the last picture, and the token ids after it."""
        inputs = self._process(conversation(shown, question))
        ids = inputs["input_ids"][0].tolist()
        cut = self._last_image(ids) + 1
        inputs.pop("attention_mask", None)
        length = len(ids)
        part = {
            name: value[:, :cut] if value.shape[:2] == (1, length) else value
            for name, value in inputs.items()
        }
        return PicturesPart(part, tuple(ids[:cut])), ids[cut:]

    def rest(self, shown: Shown, question: Question) -> list[int]:
        """Return the token ids after the last picture, without processing the pictures.

        Tokenisers split at special tokens first, so that the tokens after a picture do not depend on
        those before it: one blank picture stands for all.
        """
        last = max(n for n, part in enumerate(shown.parts) if isinstance(part, Picture))
        short = Shown(shown.recipe, (_BLANK, *shown.parts[last + 1 :]), shown.system)
        ids = self._process(conversation(short, question))["input_ids"][0].tolist()
        return ids[self._last_image(ids) + 1 :]

    def answer(self, shown: Shown, question: Question, text: str, rest: Sequence[int]) -> list[int]:
        """Return the token ids of a text as the answer, without a stop token."""
        tokenizer = self._processor.tokenizer
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        # A tokeniser that marks the first word by a space does so after a special token only.
        anchor = list(rest[-1:])
        joined = tokenizer(tokenizer.decode(anchor) + text, add_special_tokens=False)["input_ids"]
        return joined[len(anchor) :] if joined[: len(anchor)] == anchor else ids

    def begins_hidden(self, shown: Shown, question: Question) -> bool:
        """Whether the chat template itself opens a thinking mark at the end of the prompt."""
        messages = _for_template(conversation(Shown(shown.recipe, (), shown.system), question))
        text = self._processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return any(text.rstrip().endswith(begin) for begin, _ in self._recipe.hidden)

    def text_only(self, text: str) -> torch.Tensor:
        """Return the token ids of a prompt without pictures, shape (1, L)."""
        ids: torch.Tensor = self._process((Message("user", (text,)),))["input_ids"]
        return ids

    def _process(self, messages: Sequence[Message]) -> dict[str, torch.Tensor]:
        options = dict(self._recipe.processing)
        try:
            inputs = self._processor.apply_chat_template(
                _for_template(messages), tokenize=True, add_generation_prompt=True,
                return_dict=True, return_tensors="pt", sanitize_control_tokens=True,
                processor_kwargs=options,
            )  # fmt: skip
        except ValueError as error:
            raise RequestError(
                f"question: the model's processor cannot take it ({error}); change its text"
            ) from error
        return {name: value for name, value in inputs.items() if torch.is_tensor(value)}

    def _last_image(self, ids: Sequence[int]) -> int:
        return len(ids) - 1 - list(reversed(ids)).index(self._image_token)


def image_token_of(model: Any) -> int:
    """Return the id of the token that stands for a part of a picture."""
    config = model.config
    for name in ("image_token_id", "image_token_index"):
        if getattr(config, name, None) is not None:
            return int(getattr(config, name))
    raise CheckpointError(
        f"{config.model_type}: its configuration names no image token; expected a model whose prompt holds the pictures"
    )


def _for_template(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [
        {"role": message.role, "content": [_content(part) for part in message.parts]}
        for message in messages
    ]


def _content(part: str | Picture) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image", "image": Image.fromarray(part.pixels)}
