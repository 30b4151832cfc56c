"""What a server's errors mean for the reader.

A server's own words are searched, never quoted: they may repeat a question.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import httpx2
import openai

from radfound.exceptions import (
    Busy,
    Cancelled,
    ModelServerError,
    ModelServerKeyError,
    ModelServerTimeoutError,
    ModelServerUnreachableError,
    RadFoundError,
    RequestError,
    UnsupportedError,
)

_OVERRUN = re.compile(
    r"context[ _](length|size|window)|maximum model length|max_model_len|too many tokens", re.I
)
# The first pattern that fits decides: llama.cpp's fields, then the words of vLLM's versions.
_CONTEXT = (
    re.compile(r'"n_ctx": ?(\d+)'),
    re.compile(r"(?:context length is|model length of) *(\d+)", re.I),
)
_PROMPT = (
    re.compile(r'"n_prompt_tokens": ?(\d+)'),
    re.compile(r"(\d+) (?:in the messages|input tokens)|prompt \(length (\d+)", re.I),
    re.compile(r"resulted in (\d+)|contains (?:at least )?(\d+)|requested (\d+)", re.I),
)
_MOST_PICTURES = re.compile(r"at most (\d+) image", re.I)
_NO_PICTURES = re.compile(
    r"image input is not supported|mmproj|multi-?modal|not support (?:image|vision)|image_url", re.I
)
_LARGE_MB = 64  # servers without a limit of their own take far more
_CHARS_PER_TOKEN = 3.0  # a low estimate, so that what is said to fit does fit


@dataclass(frozen=True)
class Asked:
    """A request, for the message of its failure.

    Parameters
    ----------
    host : str
    model : str
    pictures : int
    text_chars : int
        Characters of all text.
    limit : int
        Most tokens of the answer.
    size_mb : float
        Of the whole request.
    """

    host: str
    model: str
    pictures: int = 0
    text_chars: int = 0
    limit: int = 1
    size_mb: float = 0.0


def most_pictures(error: BaseException) -> int | None:
    """Return the number of pictures that a server names as its limit, if it does."""
    found = _MOST_PICTURES.search(_words(error))
    return int(found[1]) if found else None


def explain(error: BaseException, asked: Asked) -> RadFoundError:
    """Return the error to raise in place of one of the client library.

    Parameters
    ----------
    error : BaseException
    asked : Asked
    """
    if isinstance(error, RadFoundError):
        return error
    if isinstance(error, asyncio.CancelledError):
        return Cancelled("the answer was cancelled")
    if isinstance(error, openai.APIStatusError):
        return _of_status(error, asked)
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    if isinstance(cause, (httpx2.ConnectError, httpx2.ConnectTimeout)):
        return ModelServerUnreachableError(
            f"{asked.host}: nothing accepts connections at the model server's address; start the server, or "
            "correct `place` in the settings of the models"
        )
    if isinstance(cause, (httpx2.TimeoutException, TimeoutError, asyncio.TimeoutError)):
        return ModelServerTimeoutError(
            f"{asked.host}: the model server took too long; ask again when it is less busy, or raise "
            "`limits` in the settings of the models"
        )
    if isinstance(error, (openai.APIConnectionError, httpx2.HTTPError)):
        if asked.size_mb > _LARGE_MB and not isinstance(cause, httpx2.RemoteProtocolError):
            return _too_large(asked)
        return ModelServerError(
            f"{asked.host}: the connection broke before the answer was complete; ask again, and look at the "
            "model server's log if it happens again"
        )
    if isinstance(error, openai.APIError):  # an error event in a stream that began well
        return _of_words(error, asked) or ModelServerError(
            f"{asked.host}: the model server failed in the middle of the answer; look at its log"
        )
    return ModelServerError(
        f"{asked.host}: the reply cannot be used ({type(error).__name__}); expected a server of the "
        "chat-completions protocol at this address"
    )


def _of_status(error: openai.APIStatusError, asked: Asked) -> RadFoundError:
    status = error.status_code
    if 300 <= status < 400:
        return ModelServerError(
            f"{asked.host}: the model server redirects to another address, which is not followed; name "
            "the final address as `place` in the settings of the models"
        )
    if status in (401, 403):
        return ModelServerKeyError(
            f"{asked.host}: the model server refused the key (status {status}); set `key` of the model in "
            "the settings of the models, as {env: NAME} or {file: PATH}"
        )
    if status == 429:
        wait = error.response.headers.get("retry-after", "")
        return Busy(
            f"{asked.host}: the model server has too many requests; ask again in a moment",
            min(int(wait), 600) if wait.isdigit() else 5,
        )
    if status == 413:
        return _too_large(asked)
    if known := _of_words(error, asked):
        return known
    if status == 404:
        return ModelServerError(
            f"{asked.host}: the model server knows no model {asked.model!r} at this address (status 404); "
            "compare the name with those at /v1/models"
        )
    if status < 500:
        return RequestError(
            f"{asked.host}: the model server refused the question (status {status}); its log says why"
        )
    return ModelServerError(
        f"{asked.host}: the model server failed (status {status}); look at its log, and ask again"
    )


def _of_words(error: openai.APIError, asked: Asked) -> RadFoundError | None:
    words = _words(error)
    if most := most_pictures(error):
        return RequestError(
            f"the study is shown as {asked.pictures} pictures; the model server takes at most {most}: ask "
            "about a region or a slice, or start the server with a higher limit"
        )
    if _OVERRUN.search(words):
        return _overrun(words, asked)
    if asked.pictures and _NO_PICTURES.search(words):
        return no_pictures(asked.model)
    return None


def _too_large(asked: Asked) -> RequestError:
    return RequestError(
        f"{asked.host}: the model server does not take a question of {asked.size_mb:.0f} MB with "
        f"{asked.pictures} pictures (llama.cpp takes about 100 MB); ask about a region or a slice, or set "
        "`limits: {pictures: N}` for the model"
    )


def no_pictures(model: str) -> UnsupportedError:
    """Return the error for a model that takes text only."""
    return UnsupportedError(
        f"{model}: takes no pictures; expected a vision-language model (with llama.cpp: start it with "
        "--mmproj), so choose another one"
    )


def _overrun(words: str, asked: Asked) -> RequestError:
    context, prompt = _first(_CONTEXT, words), _first(_PROMPT, words)
    found = f"{asked.pictures} pictures and {asked.text_chars:,} characters of text"
    if prompt:
        found += f" are {prompt:,} tokens, with room for {asked.limit} of the answer"
    room = f"the model's {context:,} tokens" if context else "the model's context"
    text = f"the question does not fit: {found}; they exceed {room}"
    if asked.pictures < 2:
        return RequestError(f"{text}; ask a shorter question, without earlier turns")
    fit = _pictures_that_fit(context, prompt, asked)
    if fit is None:
        return RequestError(f"{text}; ask about a region or a slice, which is fewer pictures")
    return RequestError(
        f"{text}; about {fit} pictures fit: ask about a region or a slice, or set `limits: {{pictures: "
        f"{fit}}}` or a smaller recipe for the model"
    )


def _pictures_that_fit(context: int | None, prompt: int | None, asked: Asked) -> int | None:
    if not context or not prompt:
        return None
    text = asked.text_chars / _CHARS_PER_TOKEN
    each = (prompt - min(text, prompt / 2)) / asked.pictures
    return max(0, min(asked.pictures - 1, int((context - asked.limit - text) / each)))


def _first(patterns: Sequence[re.Pattern[str]], words: str) -> int | None:
    for pattern in patterns:
        if found := pattern.search(words):
            return int(next(group for group in found.groups() if group))
    return None


def _words(error: BaseException) -> str:
    if not isinstance(error, openai.APIError):
        return ""
    body = error.body
    text = body if isinstance(body, str) else json.dumps(body, default=str)
    return f"{error.message} {text}"
