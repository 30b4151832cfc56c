"""Several models on one question, side by side, and whether they agree."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from radfound.exceptions import RadFoundError
from radfound.question import CANNOT_TELL, Answer

from .inquiry import Inquiry
from .open_answers import OpenAnswer
from .service import RadFoundService

_LEAST_COMMON = 0.5  # of the words of the shorter answer
_POLARITY = {"yes": True, "no": False}
_FILLERS = frozenset(
    "a an the is are was were there this that it of in on at and or with to".split()
)


@dataclass(frozen=True)
class Opinion:
    """A piece of one model's answer.

    Parameters
    ----------
    model : str
    piece : str, Answer or Exception
        Text; or the end: the answer, or why there is none.
    """

    model: str
    piece: str | Answer | Exception


def one_for_each(inquiry: Inquiry) -> dict[str, Inquiry]:
    """Return the inquiry for each of the models that it names, without readers' texts: opinions are the models'."""
    return {
        name: replace(inquiry, ask=inquiry.ask.model_copy(update={"model": name, "recall": False}))
        for name in inquiry.ask.models
    }


async def opinions(
    service: RadFoundService, inquiries: Mapping[str, Inquiry]
) -> AsyncGenerator[Opinion, None]:
    """Ask all models at once and yield their pieces as they come.

    A model that fails does not stop the others. Closing the iterator cancels all answers.
    """
    found: asyncio.Queue[Opinion] = asyncio.Queue()

    async def follow(model: str, inquiry: Inquiry) -> None:
        answer: OpenAnswer | None = None
        try:
            answer = await service.begin(inquiry)
            async with aclosing(service.pieces(answer, inquiry)) as pieces:
                async for piece in pieces:
                    found.put_nowait(Opinion(model, piece))
        except RadFoundError as error:
            found.put_nowait(Opinion(model, error))
        except Exception as error:
            found.put_nowait(Opinion(model, error))
            raise
        finally:
            if answer is not None:
                service.open_answers.close(answer)

    running = [asyncio.create_task(follow(*each)) for each in inquiries.items()]
    try:
        left = len(running)
        while left:
            opinion = await found.get()
            left -= not isinstance(opinion.piece, str)
            yield opinion
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def agree(answers: Sequence[Answer]) -> bool | None:
    """Return whether answers to one question agree, or None where words do not tell.

    Two answers that begin with yes or no agree if both say the same. Other answers agree if at least half
    of the words of the shorter one are in the longer one. Captions and reports are not compared: two good
    ones may share few words. A model that cannot tell neither agrees nor disagrees.

    Parameters
    ----------
    answers : sequence of Answer
        Of different models about one study.
    """
    if len(answers) < 2 or any(answer.task != "vqa" for answer in answers):
        return None
    if any(answer.text == CANNOT_TELL for answer in answers):
        return None
    first, *others = answers
    return all(_are_alike(first.text, other.text) for other in others)


def _are_alike(one: str, other: str) -> bool:
    words, more = _words(one), _words(other)
    said = _POLARITY.get(words[0]) if words else None
    if words and more and said is not None and more[0] in _POLARITY:
        return said == _POLARITY[more[0]]
    content, others = set(words) - _FILLERS, set(more) - _FILLERS
    if not content or not others:
        return content == others
    return len(content & others) / min(len(content), len(others)) >= _LEAST_COMMON


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
