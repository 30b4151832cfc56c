"""Several models on one question, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace

from radfound.exceptions import RadFoundError
from radfound.question import Answer

from .open_answers import OpenAnswer
from .service import Inquiry, RadFoundService


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
    """Return the inquiry for each of the models that it names."""
    return {
        name: replace(inquiry, ask=inquiry.ask.model_copy(update={"model": name}))
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
