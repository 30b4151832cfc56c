"""A study and a question as chat messages, with pictures as PNG data URLs.

Only pixels are sent: no file name, header or identifier of the study.
"""

from __future__ import annotations

import base64
import io
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from radfound.engine.chat import conversation, prompt_key
from radfound.engine.recipes import Recipe
from radfound.engine.shown import Picture, Shown
from radfound.question import Question, Turn
from radfound.study.study import Study

_CONTROL = re.compile(r"<(?=[|/]?[A-Za-z_]\w*\|?>)")
_CACHE_BYTES = 512 * 2**20


@dataclass(frozen=True, eq=False)
class Parts:
    """A study as parts of a message.

    Parameters
    ----------
    shown : Shown
    content : list of dict
        The parts in the protocol's form.
    """

    shown: Shown
    content: list[dict[str, Any]]

    @property
    def size_mb(self) -> float:
        """Size of the content in a request."""
        sizes = (len(part.get("text") or part["image_url"]["url"]) for part in self.content)
        return sum(sizes) / 1e6


class Studies:
    """Makes the parts of studies by a recipe, and keeps the latest for further questions.

    What a recipe shows depends on study and region, not on the words of the question.

    Parameters
    ----------
    recipe : Recipe
    most_pictures : int or None
        Most pictures that the model takes; a volume is then shown in fewer slices.
    cache_bytes : int
        Bound of the memory for pictures.
    """

    def __init__(
        self, recipe: Recipe, most_pictures: int | None = None, cache_bytes: int = _CACHE_BYTES
    ):
        from cachetools import LRUCache

        self.recipe = recipe
        self._lock = threading.Lock()
        self._cache: LRUCache[tuple[Any, ...], Parts] = LRUCache(cache_bytes, getsizeof=_size)
        if most_pictures is not None:
            self.narrow(most_pictures)

    def narrow(self, most_pictures: int) -> bool:
        """Show at most so many pictures from now on; return whether that is fewer than before."""
        recipe = self.recipe
        slices, images = (
            min(recipe.max_slices, most_pictures),
            min(recipe.max_images, most_pictures),
        )
        if recipe.single or (slices, images) == (recipe.max_slices, recipe.max_images):
            return False
        self.recipe = replace(recipe, max_slices=slices, max_images=images)
        return True

    def parts(self, study: Study, question: Question) -> Parts:
        """Return the parts of a study for a question."""
        recipe = self.recipe
        key = (prompt_key(study, question), question.region, recipe.max_slices)
        with self._lock:
            found = self._cache.get(key)
        if found is None:
            shown = recipe.show(study, question)
            found = Parts(shown, [_part(part) for part in shown.parts])
            with self._lock:
                if _size(found) <= self._cache.maxsize:
                    self._cache[key] = found
        return found


def _size(parts: Parts) -> int:
    pixels = sum(picture.pixels.nbytes for picture in parts.shown.pictures)
    return pixels + sum(len(part.get("text") or part["image_url"]["url"]) for part in parts.content)


def _part(part: str | Picture) -> dict[str, Any]:
    # The texts of worked examples are a person's, as the question is.
    return text_part(_plain(part)) if isinstance(part, str) else picture_part(part.pixels)


def text_part(text: str) -> dict[str, Any]:
    """Return text as a part of a message."""
    return {"type": "text", "text": text}


def picture_part(pixels: np.ndarray) -> dict[str, Any]:
    """Return a picture as a part of a message.

    Parameters
    ----------
    pixels : uint8 array, shape (H, W, 3)
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", compress_level=1)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def messages(parts: Parts, question: Question) -> list[dict[str, Any]]:
    """Return a question about a study as chat messages.

    Parameters
    ----------
    parts : Parts
        The encoded study.
    question : Question
    """
    chat = []
    for message in conversation(parts.shown, _without_marks(question)):
        content: str | list[dict[str, Any]]
        if parts.shown.parts and message.parts[0] is parts.shown.parts[0]:
            content = [*parts.content, *map(_part, message.parts[len(parts.content) :])]
        else:
            content = "".join(part for part in message.parts if isinstance(part, str))
        chat.append({"role": message.role, "content": content})
    return chat


def _without_marks(question: Question) -> Question:
    """Return a question in which a model's control tokens are ordinary text.

    Servers parse them also in a user's words: a second <image> would not match the pictures.
    """
    turns = tuple(Turn(_plain(turn.question), _plain(turn.answer)) for turn in question.history)
    return replace(question, text=question.text and _plain(question.text), history=turns)


def _plain(text: str) -> str:
    return _CONTROL.sub("< ", text)


def chars_of(chat: Sequence[dict[str, Any]]) -> int:
    """Return the number of characters of all text in a chat."""
    return sum(
        len(content)
        if isinstance(content := message["content"], str)
        else sum(len(part["text"]) for part in content if part["type"] == "text")
        for message in chat
    )
