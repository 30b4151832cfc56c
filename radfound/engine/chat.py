"""A question about a study as a conversation, the same for every backend with a chat template."""

from __future__ import annotations

from dataclasses import dataclass

from radfound.engine.shown import Picture, Shown
from radfound.exceptions import RequestError
from radfound.question import TASKS, Question
from radfound.study.study import Study


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Parameters
    ----------
    role : {"system", "user", "assistant"}
    parts : tuple of str or Picture
    """

    role: str
    parts: tuple[str | Picture, ...]


def conversation(shown: Shown, question: Question) -> tuple[Message, ...]:
    """Return the messages: system prompt, study with the first question, earlier answers, question last."""
    asked = [*(turn.question for turn in question.history), instruction(question)]
    answered = [turn.answer for turn in question.history]
    messages = [Message("system", (shown.system,))] if shown.system else []
    first = asked[0]
    if shown.parts and isinstance(shown.parts[-1], str):
        first = f"\n{first}"  # many chat templates join texts without a space
    messages.append(Message("user", (*shown.parts, first)))
    for answer, text in zip(answered, asked[1:], strict=True):
        messages += [Message("assistant", (answer,)), Message("user", (text,))]
    return tuple(messages)


def instruction(question: Question) -> str:
    """Return the text of a question, or of its task; RequestError if there is none."""
    text = (question.text or TASKS[question.task].prompt or "").strip()
    if not text:
        raise RequestError("question: missing; ask one, or request a caption or a report")
    return text


def too_long(question: Question, tokens: int, fits: str) -> RequestError:
    """Return the error of a prompt that does not fit, which tells what to leave out.

    Parameters
    ----------
    question : Question
    tokens : int
        Of the prompt.
    fits : str
        How many fit, in words.
    """
    part, advice = (
        ("history", "leave out the oldest turns")
        if question.history
        else ("question", "shorten it")
    )
    return RequestError(f"{part}: the prompt has {tokens:,} tokens; {fits}; {advice}")


def prompt_key(study: Study, question: Question) -> str:
    """Return what the pictures of a prompt depend on, region and adapter excepted: the study and the worked examples."""
    return " ".join((study.digest, *(each.correction for each in question.examples)))
