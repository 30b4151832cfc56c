"""A model behind a server of the chat-completions protocol."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import anyio
import numpy as np
import openai
from cachetools import LRUCache

from radfound.engine.hidden import HiddenText
from radfound.engine.openai.adapters import Adapters
from radfound.engine.openai.address import Address
from radfound.engine.openai.connection import Connection
from radfound.engine.openai.failures import Asked, explain, most_pictures, no_pictures
from radfound.engine.openai.limits import Limits
from radfound.engine.openai.prompt import Parts, Studies, chars_of, messages
from radfound.engine.openai.server import Server, ask_server
from radfound.engine.openai.tokens import Chunks
from radfound.engine.protocol import Abilities, Description
from radfound.engine.recipes import Recipe, recipe_for
from radfound.engine.stream import Stream
from radfound.exceptions import ModelServerError, RequestError, UnsupportedError
from radfound.question import Question
from radfound.study.study import Study

T = TypeVar("T")

_MOST_CHARS_PER_TOKEN = 4.5  # of a text as long as the context
_LARGEST_UNKNOWN = 0.05  # part of a choice's probability that may belong to any option
_TOO_LONG = (400, 413, 422)  # statuses of a prompt that the server cannot take
_KNOWN_LENGTHS = 1_000  # prompts whose number of tokens is kept
_WIDE_TOP = 1_000  # likely tokens for a choice, where the server has no limit of 20


class OpenAIBackend:
    """Answers questions by a model behind a server: vLLM, SGLang, llama.cpp, Ollama and others.

    The server is asked once, here, what it can do.

    Parameters
    ----------
    address : Address
    recipe : Recipe or None
        None chooses by the model's name.
    name : str
        Name in answers; the model's name at the server if empty.
    key : str or None
    limits : Limits
    revision : str
        Identifies the base weights, for adapters trained on them; if empty, a hash of what the server says.
    adapter_folder : str or None
        The folder of adapters as the server sees it, if it mounts it elsewhere.

    Raises
    ------
    ModelServerError
        If the server cannot be reached or answers no question.
    """

    def __init__(
        self,
        address: Address,
        recipe: Recipe | None = None,
        *,
        name: str = "",
        key: str | None = None,
        limits: Limits | None = None,
        revision: str = "",
        adapter_folder: str | None = None,
    ):
        self._address, self._limits = address, limits or Limits()
        self._connection = Connection(address, key, self._limits)
        try:
            self._server = self._connection.call(ask_server(self._connection, address))
        except BaseException:
            self._connection.close()
            raise
        self._adapters = Adapters(self._connection, self._server, address.host, adapter_folder)
        recipe = recipe or recipe_for(model=address.model or self._server.model)
        self._studies = Studies(recipe, self._limits.pictures)
        self._slots = anyio.CapacityLimiter(self._limits.at_once)
        self._prompt_lengths: LRUCache[tuple[str, Question], int] = LRUCache(_KNOWN_LENGTHS)
        self._lock = threading.Lock()
        self._name = name or self._server.model
        self._revision = revision or self._server.revision

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r} at {self._address.host!r})"

    @property
    def server(self) -> Server:
        """What the server said about itself at the start."""
        return self._server

    @property
    def destination(self) -> str | None:
        """Where pictures are sent, in words for the reader; None if they stay on this machine."""
        return self._address.destination

    # The protocol -----------------------------------------------------------------------------

    def describe(self) -> Description:
        """Return the model's description; never blocks."""
        server = self._server
        return Description(
            name=self._name,
            revision=self._revision,
            context_tokens=self._limits.context_tokens or server.context_tokens,
            max_images=self._studies.recipe.max_images if server.takes_pictures else 0,
            vocabulary=server.vocabulary,
            recipe=self._studies.recipe.name,
            abilities=Abilities(
                probabilities="top" if server.top else "none",
                score=self._can_score,
                choose=bool(server.top),
                adapters=server.kind_of_adapters,
                examples=server.takes_pictures and not self._studies.recipe.single,
            ),
        )

    def check(
        self, question: Question, limit: int, *, images: int = 1, evidence: bool = False
    ) -> None:
        """Raise RequestError if a question cannot be asked, before its study is loaded."""
        about = self.describe()
        if evidence:
            self._cannot("evidence maps")
        if not self._server.takes_pictures:
            raise no_pictures(self._name)
        if images > about.max_images:
            raise RequestError(
                f"images: found {images}; {self._name} takes at most {about.max_images} in one study"
            )
        if about.context_tokens is None:
            return
        chars = sum(
            map(len, (question.text or "", *(t.question + t.answer for t in question.history)))
        )
        if chars > _MOST_CHARS_PER_TOKEN * about.context_tokens:
            raise RequestError(
                f"question: found {chars:,} characters with its history; {self._name} has "
                f"{about.context_tokens:,} tokens for images, question and answer together"
            )
        if limit >= about.context_tokens:
            raise RequestError(
                f"max_new_tokens: found {limit}; {self._name} has {about.context_tokens} tokens for images, "
                "question and answer together"
            )

    def stream(
        self, study: Study, question: Question, *, adapter: str | None, limit: int
    ) -> Stream:
        """Send a question and return its stream at once; errors are raised from the stream."""
        answering: Future[None]

        def stop() -> None:
            answering.cancel()  # closes the connection, which frees the server's slot

        stream = Stream(on_cancel=stop)
        answering = self._connection.start(self._answer(stream, study, question, adapter, limit))
        return stream

    def score(self, study: Study, question: Question, text: str, *, adapter: str | None) -> float:
        """Return the mean log-probability of the tokens of `text` as the answer."""
        if not self._can_score:
            self._cannot("the probability of a given text")
        scores = self._ask(self._scores(study, question, text, adapter), adapter)
        return sum(scores) / len(scores)

    def choose(
        self, study: Study, question: Question, options: Sequence[str], *, adapter: str | None
    ) -> Mapping[str, float]:
        """Return the probability of each option as the answer; they add up to 1.

        Options are told apart by their first token, among the likely ones. Where that does not do, and the
        server can score texts, each option is scored.

        Raises
        ------
        UnsupportedError
            If the server's log-probabilities do not tell the options apart.
        """
        if not self._server.top:
            self._cannot("probabilities")
        found = self._ask(self._first_tokens(study, question, options, adapter), adapter)
        if found is None and self._can_score:
            logs = [
                sum(self._ask(self._scores(study, question, option, adapter), adapter))
                for option in options
            ]
            found = {
                option: math.exp(log - max(logs)) for option, log in zip(options, logs, strict=True)
            }
        if found is None:
            raise UnsupportedError(
                f"{self._name}: its server's log-probabilities do not tell the {len(options)} options apart; "
                "expected options that begin with different words, and one of them among the likely answers"
            )
        total = sum(found.values())
        return {option: found[option] / total for option in options}

    def embed(self, study: Study) -> np.ndarray:
        """Raise UnsupportedError: the protocol has no embeddings of pictures."""
        self._cannot("embeddings")

    def evidence(
        self,
        study: Study,
        question: Question,
        text: str,
        *,
        adapter: str | None,
        before: str = "",
    ) -> NoReturn:
        """Raise UnsupportedError: the protocol has no attention or gradients."""
        self._cannot("evidence maps")

    def use_adapter(self, adapter: str, folder: Path) -> None:
        """Make an adapter available under an id; does nothing if it already is."""
        self._adapters.use(adapter, folder)

    def drop_adapter(self, adapter: str) -> None:
        """Forget an adapter; does nothing if it is unknown."""
        self._adapters.drop(adapter)

    def close(self) -> None:
        """Cancel all answers and close the connections."""
        self._connection.close()

    # On the event loop ------------------------------------------------------------------------

    async def _answer(
        self, stream: Stream, study: Study, question: Question, adapter: str | None, limit: int
    ) -> None:
        asked = Asked(self._address.host, self._name)
        try:
            with anyio.fail_after(self._limits.answer_s):
                async with self._slots:
                    has_narrowed = False
                    while True:
                        began = time.monotonic()
                        parts = await self._parts(study, question)
                        stream.encode_ms = round(1000 * (time.monotonic() - began))
                        stream.shown = parts.shown
                        asked = self._asked(parts, question, limit)
                        try:
                            body = self._body(parts, question, adapter, limit)
                            async with self._adapters.turn(adapter):
                                await self._generate(stream, body, limit)
                            break
                        except openai.APIStatusError as error:
                            if question.examples and error.status_code in _TOO_LONG:
                                question = replace(question, examples=())
                            elif has_narrowed or not self._shows_fewer(error):
                                raise
                            else:
                                has_narrowed = True
            stream.end()
        except asyncio.CancelledError as error:
            stream.fail(explain(error, asked))
            raise
        except Exception as error:
            stream.fail(explain(error, asked))

    async def _generate(self, stream: Stream, body: dict[str, Any], limit: int) -> None:
        chunks, hidden = Chunks(), HiddenText(self._studies.recipe.hidden)
        visible = received = 0
        async with aclosing(self._connection.chat_chunks(body)) as replies:
            async for chunk in replies:
                for token in chunks.tokens(chunk):
                    for each in hidden.feed(token):
                        if visible >= limit and not each.last:
                            return  # cut off: the server counts hidden text too, or ignores the limit
                        visible += 1
                        stream.put(each)
                    received += 1
                if chunks.finish_reason is not None or received > body["max_tokens"]:
                    for each in hidden.flush():
                        stream.put(each)
                    return
        raise ModelServerError(
            f"{self._address.host}: the model server ended the answer in the middle; ask again, and look at "
            "its log if it happens again"
        )

    def _shows_fewer(self, error: BaseException) -> bool:
        """Keep to the number of pictures that the server names as its limit, if that is fewer than now."""
        most = most_pictures(error)
        return most is not None and most > 0 and self._studies.narrow(most)

    async def _parts(self, study: Study, question: Question) -> Parts:
        if not self._server.takes_pictures:
            raise no_pictures(self._name)
        return await asyncio.to_thread(self._studies.parts, study, question)

    def _body(
        self, parts: Parts, question: Question, adapter: str | None, limit: int
    ) -> dict[str, Any]:
        body = {
            "messages": messages(parts, question),
            "max_tokens": limit + self._hidden_tokens(),
            "temperature": 0,
            **self._adapters.fields(adapter),
        }
        if self._server.top:
            body |= {"logprobs": True, "top_logprobs": self._server.top}
        return body

    async def _first_tokens(
        self, study: Study, question: Question, options: Sequence[str], adapter: str | None
    ) -> dict[str, float] | None:
        parts = await self._parts(study, question)
        body = {**self._body(parts, question, adapter, 1), "max_tokens": 1}
        if self._server.kind == "llama.cpp":
            body["top_logprobs"] = _WIDE_TOP
        reply = await self._connection.chat(body)
        entries = (reply["choices"][0].get("logprobs") or {}).get("content") or []
        return _share(options, entries[0].get("top_logprobs") or () if entries else ())

    async def _scores(
        self, study: Study, question: Question, text: str, adapter: str | None
    ) -> list[float]:
        """Return the log-probability of each token of a text as the answer, by vLLM's `prompt_logprobs`."""
        parts = await self._parts(study, question)
        fields = self._body(parts, question, adapter, 1)
        kept = ("messages", "model", "temperature")
        body = {**{name: fields[name] for name in kept}, "max_tokens": 1}
        start = await self._prompt_length(study, question, body)
        chat = [*body["messages"], {"role": "assistant", "content": text}]
        reply = await self._connection.chat(
            {
                **body,
                "messages": chat,
                "continue_final_message": True,
                "add_generation_prompt": False,
                "prompt_logprobs": 0,
            }
        )
        places = (reply.get("prompt_logprobs") or [])[start:]
        scores = [next(iter(place.values()))["logprob"] for place in places if place]
        if not scores:
            raise UnsupportedError(
                f"{self._name}: the server gave no log-probabilities of the text; expected vLLM's "
                "prompt_logprobs"
            )
        return [float(score) for score in scores]

    async def _prompt_length(self, study: Study, question: Question, body: dict[str, Any]) -> int:
        key = (study.digest, question)
        with self._lock:
            known = self._prompt_lengths.get(key)
        if known is None:
            known = int((await self._connection.chat(body))["usage"]["prompt_tokens"])
            with self._lock:
                self._prompt_lengths[key] = known
        return known

    # Helpers ----------------------------------------------------------------------------------

    @property
    def _can_score(self) -> bool:
        return self._server.kind == "vLLM" and self._server.top > 0

    async def _within(self, coroutine: Coroutine[Any, Any, T], adapter: str | None) -> T:
        with anyio.fail_after(self._limits.answer_s):
            async with self._adapters.turn(adapter):
                return await coroutine

    def _ask(self, coroutine: Coroutine[Any, Any, T], adapter: str | None) -> T:
        try:
            return self._connection.call(self._within(coroutine, adapter))
        except Exception as error:
            raise explain(error, Asked(self._address.host, self._name)) from None

    def _asked(self, parts: Parts, question: Question, limit: int) -> Asked:
        chars = chars_of(messages(parts, question))
        pictures = len(parts.shown.pictures)
        return Asked(self._address.host, self._name, pictures, chars, limit, parts.size_mb)

    def _hidden_tokens(self) -> int:
        """Return the room for text that is not shown: what the recipe wants, or an eighth of the context."""
        if not self._studies.recipe.hidden:
            return 0
        context = self.describe().context_tokens
        wanted = self._studies.recipe.hidden_tokens
        return wanted if context is None else min(wanted, context // 8)

    def _cannot(self, what: str) -> NoReturn:
        kind = self._server.kind or "its server"
        raise UnsupportedError(
            f"{self._name}: {kind} gives no {what}; choose another model for this"
        )


def _share(options: Sequence[str], top: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Return the probability of each option's first tokens; None if these do not tell them apart.

    An option that is not among the likely tokens counts as 0, where it could be only a small part.
    """
    found = dict.fromkeys(options, 0.0)
    of_several, least = 0.0, 1.0
    for entry in top:
        probability = math.exp(float(entry["logprob"]))
        least = min(least, probability)
        begin = str(entry.get("token") or "").strip().casefold()
        matching = [option for option in options if begin and option.casefold().startswith(begin)]
        if len(matching) == 1:
            found[matching[0]] += probability
        elif matching:
            of_several += probability
    total = sum(found.values())
    unknown = of_several + least * sum(not value for value in found.values())
    return found if total > 0 and unknown <= _LARGEST_UNKNOWN * total else None
