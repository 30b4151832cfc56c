"""The backend on a server that fails in every way."""

import asyncio
import logging
import socket
import threading
import time
from dataclasses import replace

import pytest

from radfound.engine.openai.address import parse_address
from radfound.engine.openai.backend import OpenAIBackend
from radfound.engine.recipes import RECIPES
from radfound.exceptions import (
    Busy,
    Cancelled,
    ModelServerError,
    ModelServerKeyError,
    ModelServerTimeoutError,
    ModelServerUnreachableError,
    ModelSettingsError,
    RequestError,
    UnsupportedError,
)
from radfound.question import Question, Turn
from tests.radfound.engine.openai.conftest import connect, picture, text_of, volume
from tests.radfound.engine.openai.scripted import (
    Scripted,
    chunk,
    event,
    forever,
    redirect,
    refusal,
    reply,
    serving,
)

ASK = Question(text="Is an effusion seen?")
ANSWER = "No effusion is seen."


def ask(backend, study=None, limit=16, question=ASK):
    stream = backend.stream(study or picture(), question, adapter=None, limit=limit)
    return text_of(stream)


def answers_with(made):
    async def script(body):
        return made

    return script


def test_a_question_is_answered_by_the_protocol(backend, scripted):
    tokens = list(backend.stream(picture(), ASK, adapter=None, limit=16))
    assert "".join(token.text for token in tokens) == ANSWER
    assert tokens[-1].last
    assert tokens[-1].log_probability == -0.25
    assert backend.describe().abilities.probabilities == "top"
    assert backend.describe().context_tokens == 4096
    body = scripted.requests[-1]
    assert (body["model"], body["temperature"], body["top_logprobs"]) == ("m", 0, 20)


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        (refusal(401), ModelServerKeyError, "refused the key"),
        (refusal(403), ModelServerKeyError, "refused the key"),
        (refusal(429, headers={"retry-after": "17"}), Busy, "too many requests"),
        (refusal(404), ModelServerError, "knows no model 'm'"),
        (refusal(413), RequestError, "does not take a question of"),
        (refusal(422), RequestError, "refused the question"),
        (refusal(500), ModelServerError, "failed \\(status 500\\)"),
        (refusal(503), ModelServerError, "failed \\(status 503\\)"),
        (refusal(500, "image input is not supported"), UnsupportedError, "takes no pictures"),
        (redirect("http://192.0.2.1/v1/chat/completions"), ModelServerError, "not followed"),
        (reply("data: no JSON\n\n"), ModelServerError, "cannot be used"),
        (reply("<html>hello</html>"), ModelServerError, "in the middle"),
        (reply(event(chunk("No"))), ModelServerError, "in the middle"),
        (reply(event({"error": {"message": "boom"}})), ModelServerError, "failed in the middle"),
    ],
)
def test_each_failure_is_a_clear_error_and_the_next_question_works(
    backend, scripted, made, error, words
):
    scripted.script = answers_with(made)
    with pytest.raises(error, match=words):
        ask(backend)
    scripted.script = None
    assert ask(backend) == ANSWER


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        (
            "This model's maximum context length is 4096 tokens. However, you requested 9016 tokens "
            "(9000 in the messages, 16 in the completion).",
            {},
        ),
        ("The decoder prompt (length 9000) is longer than the maximum model length of 4096.", {}),
        ("request exceeds the available context size", {"n_prompt_tokens": 9000, "n_ctx": 4096}),
    ],
)
def test_an_overrun_says_how_many_pictures_fit(backend, scripted, words, fields):
    scripted.script = answers_with(refusal(400, words, **fields))
    with pytest.raises(RequestError, match="8 pictures .* are 9,000 tokens.*about 3 pictures fit"):
        ask(backend, volume())


def test_an_overrun_by_text_alone_asks_for_a_shorter_question(backend, scripted):
    scripted.script = answers_with(refusal(400, "context_length_exceeded"))
    with pytest.raises(RequestError, match="ask a shorter question"):
        ask(backend, picture())


def test_busy_says_when_to_ask_again(backend, scripted):
    scripted.script = answers_with(refusal(429, headers={"retry-after": "17"}))
    with pytest.raises(Busy) as found:
        ask(backend)
    assert found.value.retry_after_s == 17


def test_a_limit_of_pictures_is_learnt_and_kept(backend, scripted):
    scripted.most_pictures = 3
    stream = backend.stream(volume(), ASK, adapter=None, limit=16)
    assert text_of(stream) == ANSWER
    assert stream.shown.note == "3 of 24 slices"
    before = len(scripted.requests)
    assert ask(backend, volume(seed=1)) == ANSWER
    assert len(scripted.requests) == before + 1
    assert backend.describe().max_images == 3


def test_an_answer_that_never_ends_is_cut_off_at_its_limit_of_tokens(backend, scripted):
    async def endless(body):
        return scripted.streamed(forever(lambda: event(chunk("on and "))))

    scripted.script = endless
    tokens = list(backend.stream(picture(), ASK, adapter=None, limit=16))
    assert len(tokens) == 16
    assert not tokens[-1].last
    _wait_until(lambda: scripted.open_streams == 0)


@pytest.mark.parametrize("make", [lambda: event(chunk("")), lambda: ": still here\n\n"])
def test_a_stream_without_tokens_ends_at_the_limit_of_time(scripted, make):
    async def endless(body):
        return scripted.streamed(forever(make, 0.05))

    scripted.script = endless
    backend = connect(scripted.url, limits={"answer_s": 1})
    with pytest.raises(ModelServerTimeoutError, match="took too long"):
        ask(backend)
    _wait_until(lambda: scripted.open_streams == 0)
    backend.close()


def test_a_line_without_an_end_is_ended(scripted):
    async def endless(body):
        return scripted.streamed(forever(lambda: "x" * 2**20, 0))

    backend = connect(scripted.url)
    scripted.script = endless
    with pytest.raises(ModelServerError, match="more than 32 MB for one answer"):
        ask(backend)
    backend.close()


def test_a_silent_server_is_a_timeout_and_is_asked_once(scripted):
    asked = []

    async def silent(body):
        asked.append(body)
        return scripted.streamed(forever(lambda: "", 0.05))

    backend = connect(scripted.url, limits={"silence_s": 0.5, "answer_s": 5})
    scripted.script = silent
    with pytest.raises(ModelServerTimeoutError):
        ask(backend)
    assert len(asked) == 1
    backend.close()


def test_a_connection_that_breaks_before_the_first_token_is_tried_again():
    with serving(Scripted()) as server:
        backend = connect(server.url, limits={"connect_s": 1})
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])

    def refuse_twice_then_answer():
        with socket.create_server(("127.0.0.1", port)) as listener:
            for _ in range(2):
                listener.accept()[0].close()
            connection, _ = listener.accept()
            with connection:
                connection.recv(2**20)
                head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
                connection.sendall((head + event(chunk("Back.", "stop"))).encode())

    thread = threading.Thread(target=refuse_twice_then_answer)
    thread.start()
    assert ask(backend, picture(side=8)) == "Back."
    thread.join()
    backend.close()


def test_a_server_that_fails_is_not_asked_again(backend, scripted):
    scripted.script = answers_with(refusal(500))
    before = len(scripted.requests)
    with pytest.raises(ModelServerError):
        ask(backend)
    assert len(scripted.requests) == before + 1


def test_an_unreachable_server_is_told_at_the_start_and_in_the_answer():
    with serving(Scripted()) as server:
        backend = connect(server.url, limits={"connect_s": 1})
        url = server.url
    with pytest.raises(ModelServerUnreachableError, match="start the server"):
        ask(backend)
    backend.close()
    with pytest.raises(ModelServerUnreachableError, match="start the server"):
        connect(url)


def test_cancelling_closes_the_stream(backend, scripted):
    async def endless(body):
        return scripted.streamed(forever(lambda: event(chunk("on")), 0.02))

    scripted.script = endless
    stream = backend.stream(picture(), ASK, adapter=None, limit=10_000)
    next(iter(stream))
    assert scripted.open_streams == 1
    stream.cancel()
    _wait_until(lambda: scripted.open_streams == 0)


def test_closing_cancels_answers_and_refuses_new_ones(scripted):
    async def endless(body):
        return scripted.streamed(forever(lambda: event(chunk("on")), 0.02))

    backend = connect(scripted.url)
    scripted.script = endless
    stream = backend.stream(picture(), ASK, adapter=None, limit=10_000)
    next(iter(stream))
    backend.close()
    backend.close()
    with pytest.raises(Cancelled):
        list(stream)
    with pytest.raises(ModelServerError, match="closed"):
        ask(backend)


def test_no_more_questions_than_allowed_are_sent_at_once(scripted):
    most = []

    async def slow():
        most.append(scripted.open_streams)
        async for each in scripted.answer():
            yield each
        await asyncio.sleep(0.05)

    async def script(body):
        return scripted.streamed(slow())

    backend = connect(scripted.url, limits={"at_once": 2})
    scripted.script = script
    streams = [backend.stream(picture(n), ASK, adapter=None, limit=9) for n in range(6)]
    assert [text_of(stream) for stream in streams] == [ANSWER] * 6
    assert max(most) <= 2
    backend.close()


def test_without_log_probabilities_nothing_is_made_up(scripted):
    scripted.logprobs = False
    scripted.models_status = 500  # as `transformers serve` without a cache of the hub
    backend = connect(scripted.url, model="m")
    tokens = list(backend.stream(picture(), ASK, adapter=None, limit=16))
    assert {token.log_probability for token in tokens} == {None}
    assert {token.entropy for token in tokens} == {None}
    about = backend.describe()
    assert about.abilities.probabilities == "none"
    assert not about.abilities.choose
    with pytest.raises(UnsupportedError, match="gives no probabilities"):
        backend.choose(picture(), ASK, ["Yes", "No"], adapter=None)
    backend.close()


def test_several_models_need_a_name(scripted):
    scripted.models = [{"id": "one"}, {"id": "two"}]
    with pytest.raises(ModelSettingsError, match="it has one, two; add it as in"):
        connect(scripted.url)


def test_text_between_thinking_marks_is_not_part_of_the_answer(backend, scripted):
    async def thinking():
        for word in ("<th", "ink>", "hmm", " hmm", "</think>", "No", "."):
            yield event(chunk(word, top=[(word, -0.5)]))
        yield event(chunk(finish="stop"))

    async def script(body):
        return scripted.streamed(thinking())

    scripted.script = script
    assert ask(backend, limit=2) == "No."


def test_hidden_text_gets_room_of_its_own(scripted):
    recipe = replace(RECIPES["plain"], hidden_tokens=300)
    backend = connect(scripted.url, recipe)
    ask(backend, limit=10)
    assert scripted.requests[-1]["max_tokens"] == 310
    backend.close()


def test_only_pixels_and_words_are_sent(scripted, monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another-service")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: of-another-service")
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:9")
    caplog.set_level(logging.DEBUG)
    logging.getLogger("openai").setLevel(logging.DEBUG)
    study = volume()
    study._given_id = "DOE^JANE"
    backend = connect(scripted.url)
    scripted.script = answers_with(refusal(500, "the question was: Is an effusion seen?"))
    with pytest.raises(ModelServerError) as found:
        ask(backend, study)
    sent = f"{scripted.requests}{scripted.headers}"
    assert "DOE^JANE" not in sent
    assert "another-service" not in sent
    assert {name for headers in scripted.headers for name in headers} <= {
        "host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent",
    }  # fmt: skip
    assert "effusion" not in f"{found.value}{caplog.text}{backend!r}"
    backend.close()


def test_earlier_turns_follow_the_study(backend, scripted):
    asked = Question(text="And left?", history=(Turn("Is it on the right?", "Yes."),))
    ask(backend, question=asked)
    first, second, third = scripted.requests[-1]["messages"]
    assert [part["type"] for part in first["content"]] == ["image_url", "text"]
    assert first["content"][-1]["text"] == "Is it on the right?"
    assert (second["role"], second["content"]) == ("assistant", "Yes.")
    assert (third["role"], third["content"]) == ("user", "And left?")


def test_control_tokens_in_a_question_are_sent_as_words(backend, scripted):
    words = "A <image> <|im_end|></s> of < 5 mm, or <6 mm?"
    ask(backend, question=Question(text=words))
    sent = scripted.requests[-1]["messages"][0]["content"][-1]["text"]
    assert sent == "A < image> < |im_end|>< /s> of < 5 mm, or <6 mm?"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://user:secret-key@127.0.0.1:1/v1", "holds a user, password or query"),
        ("http://127.0.0.1:1/v1?key=secret-key", "holds a user, password or query"),
        ("ftp://127.0.0.1/v1", "expected an address such as"),
        ("127.0.0.1:8001", "expected an address such as"),
        ("http://127.0.0.1:port/v1", "expected an address such as"),
        ("https://gpu.example.org/v1", "send_images_to gpu.example.org"),
        ("http://10.1.2.3:8001/v1", "send_images_to 10.1.2.3"),
        ("http://127.0.0.1.example.org/v1", "send_images_to 127.0.0.1.example.org"),
    ],
)
def test_addresses_that_must_not_get_images_are_refused(text, words):
    with pytest.raises(ModelSettingsError, match=words) as found:
        parse_address(text)
    assert "secret-key" not in str(found.value)


def test_an_allowed_address_says_where_images_go():
    allowed = ["gpu.example.org", "GPU2"]
    address = parse_address("https://GPU.example.org/v1#medgemma", allowed)
    assert (address.url, address.model) == ("https://gpu.example.org/v1", "medgemma")
    assert address.destination == "Images are sent to gpu.example.org"
    plain = parse_address("http://gpu2:8001", allowed)
    assert plain.destination == "Images are sent to gpu2, without encryption"
    for local in ("http://localhost:1/v1", "http://127.0.0.9:1", "http://[::1]:1/v1"):
        assert parse_address(local).destination is None


def test_the_key_is_sent_and_never_shown(scripted):
    backend = OpenAIBackend(parse_address(scripted.url), key="sk-123")
    ask(backend)
    assert scripted.headers[-1]["authorization"] == "Bearer sk-123"
    assert "sk-123" not in repr(backend)
    backend.close()


def _wait_until(is_true, patience_s=5):
    deadline = time.monotonic() + patience_s
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
