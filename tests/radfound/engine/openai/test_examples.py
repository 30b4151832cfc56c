"""Worked examples in the requests to a server."""

import pytest

from radfound.question import Question, WorkedExample
from tests.radfound.engine.openai.conftest import picture, text_of
from tests.radfound.engine.openai.scripted import refusal

EXAMPLE = WorkedExample("c1", picture(5), "Any effusion?", "Yes <image>", "Dr A, 2026-08-01")
ASK = Question(text="Any effusion?", examples=(EXAMPLE,))


def content(request):
    return [part for message in request["messages"] for part in message["content"]]


def pictures(request):
    return [part for part in content(request) if part["type"] == "image_url"]


def ask(backend, question):
    return text_of(backend.stream(picture(1), question, adapter=None, limit=16))


def test_the_request_holds_the_examples_picture_and_answer(backend, scripted):
    assert backend.describe().abilities.examples
    assert ask(backend, ASK)
    request = scripted.requests[-1]
    assert len(pictures(request)) == 2
    assert "QUESTION: Any effusion?\nANSWER: Yes < image>\n" in [
        part.get("text") for part in content(request)
    ]


def test_the_same_study_without_examples_is_asked_without_them(backend, scripted):
    ask(backend, ASK)
    ask(backend, Question(text="Any effusion?"))
    assert len(pictures(scripted.requests[-1])) == 1


@pytest.mark.parametrize("status", [400, 413])
def test_a_prompt_that_is_too_long_is_sent_again_without_examples(backend, scripted, status):
    async def script(body):
        if len(pictures(body)) > 1:
            return refusal(status, "This model's maximum context length is 4096 tokens.")
        return scripted.streamed(scripted.answer())

    scripted.script = script
    assert ask(backend, ASK) == "No effusion is seen."
    assert len(pictures(scripted.requests[-1])) == 1
