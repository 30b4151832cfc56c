"""Complete answers: many questions to one backend at once, which decodes them in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from radfound.engine.stream import Stream, Token
from radfound.exceptions import RequestError, UnsupportedError
from radfound.question import Question
from radfound.study.study import Study

if TYPE_CHECKING:
    from radfound.engine.protocol import Backend

AT_ONCE = 64


@dataclass(frozen=True)
class Generated:
    """A complete answer.

    Parameters
    ----------
    text : str
    log_probabilities, entropies : tuple of float, or None
        Of each token, stop token included; None if the backend does not know them.
    complete : bool
        Whether the answer ended with the stop token rather than at the token limit.
    """

    text: str
    log_probabilities: tuple[float, ...] | None
    entropies: tuple[float, ...] | None
    complete: bool

    @classmethod
    def of(cls, tokens: Sequence[Token]) -> Generated:
        """Return the answer of some tokens.

        A server that streams no probability of the stop token still gives those of the text.
        """
        told = (
            tokens[:-1]
            if tokens and tokens[-1].last and tokens[-1].log_probability is None
            else tokens
        )
        return cls(
            "".join(token.text for token in tokens),
            _all_known([token.log_probability for token in told]) if told else None,
            _all_known([token.entropy for token in told]) if told else None,
            bool(tokens) and tokens[-1].last,
        )


def _all_known(values: Sequence[float | None]) -> tuple[float, ...] | None:
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


@dataclass(frozen=True, eq=False)
class Ask:
    """A question about a study, with the token limit of its answer."""

    study: Study
    question: Question
    limit: int


def generate(
    backend: Backend,
    asks: Iterable[Ask],
    *,
    adapter: str | None = None,
    at_once: int = AT_ONCE,
    refused: Callable[[RequestError], Generated] | None = None,
) -> Iterator[Generated]:
    """Yield the answers in the order of the questions.

    Parameters
    ----------
    backend : Backend
    asks : iterable of Ask
        Consumed as answers end, so that few studies are in memory.
    adapter : str, optional
        An id given to `use_adapter`.
    at_once : int
        Most questions that the backend has at the same time.
    refused : callable, optional
        Gives the answer to a question that the model cannot take, because it does not fit; without it the error
        is raised.
    """

    def answer(stream: Stream) -> Generated:
        try:
            return Generated.of(list(stream))
        except RequestError as error:
            if refused is None or isinstance(error, UnsupportedError):
                raise
            return refused(error)

    open_streams: deque[Stream] = deque()
    try:
        for ask in asks:
            open_streams.append(
                backend.stream(ask.study, ask.question, adapter=adapter, limit=ask.limit)
            )
            if len(open_streams) >= at_once:
                yield answer(open_streams[0])
                open_streams.popleft()
        while open_streams:
            yield answer(open_streams[0])
            open_streams.popleft()
    finally:
        for stream in open_streams:
            stream.cancel()
