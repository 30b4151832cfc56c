"""The backend on llama.cpp's real server."""

import asyncio
import base64
import io
import math
import time
from dataclasses import replace
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from radfound.engine.recipes import RECIPES
from radfound.exceptions import (
    AdapterError,
    Cancelled,
    ModelServerError,
    ModelServerKeyError,
    ModelServerUnreachableError,
    RequestError,
    UnsupportedError,
)
from radfound.question import Question, Turn
from tests.radfound.engine.openai import llama_cpp
from tests.radfound.engine.openai.conftest import connect, picture, text_of, volume

ASK = Question(text="What is shown?")
ORGAN = Question(text="Name the organ that pumps blood through the body, please.")
NOWHERE = Path("unused")


def answer(backend, study=None, question=ASK, adapter=None, limit=12):
    study = picture() if study is None else study
    return text_of(backend.stream(study, question, adapter=adapter, limit=limit))


def test_the_server_is_described_as_it_is(llama):
    about = llama.describe()
    assert (about.name, about.context_tokens, about.vocabulary) == ("smol", 2048, 49152)
    assert about.recipe == "plain"
    assert about.abilities.probabilities == "top"
    assert about.abilities.adapters == "at start"
    assert not about.abilities.score
    assert llama.destination is None


def test_tokens_come_with_log_probability_and_a_bound_of_entropy(llama):
    tokens = list(llama.stream(picture(), ASK, adapter=None, limit=8))
    assert len(tokens) == 8
    assert not tokens[-1].last  # cut off by the limit
    for token in tokens:
        assert token.log_probability <= 0
        assert 0 < token.entropy < math.log(49152)


def test_an_answer_that_ends_has_its_stop_token(llama):
    tokens = list(llama.stream(picture(), ORGAN, adapter=None, limit=60))
    assert tokens[-1].last
    assert tokens[-1].text == ""
    assert tokens[-1].log_probability is None  # llama.cpp does not stream it
    assert [token.last for token in tokens[:-1]] == [False] * (len(tokens) - 1)


def test_the_answer_depends_on_the_picture(llama):
    first = list(llama.stream(picture(0), ASK, adapter=None, limit=1))[0]
    again = list(llama.stream(picture(0), ASK, adapter=None, limit=1))[0]
    other = list(llama.stream(picture(1), ASK, adapter=None, limit=1))[0]
    assert abs(first.log_probability - again.log_probability) < 1e-3
    assert abs(first.log_probability - other.log_probability) > 1e-3


def test_a_volume_is_shown_in_slices_that_the_stream_names(llama):
    stream = llama.stream(volume(24), ASK, adapter=None, limit=4)
    assert text_of(stream)
    assert len(stream.shown.pictures) == 8
    assert stream.shown.note == "8 of 24 slices"


def test_earlier_turns_change_the_answer(llama):
    turns = (Turn("What is the capital of France?", "The capital of France is Paris."),)
    asked = Question(text="And of Italy?", history=turns)
    assert answer(llama, question=asked) != answer(llama, question=Question(text=asked.text))


def test_async_readers_get_their_tokens_at_once(llama):
    async def read(seed):
        stream = llama.stream(picture(seed), ASK, adapter=None, limit=6)
        return "".join([token.text async for token in stream])

    async def read_all():
        return await asyncio.gather(*(read(seed) for seed in range(6)))

    assert all(asyncio.run(read_all()))


def test_cancelling_frees_the_slot_of_the_server(llama, llama_url):
    streams = [llama.stream(picture(n), ASK, adapter=None, limit=1500) for n in range(4)]
    for stream in streams:
        next(iter(stream))
        stream.cancel()
        with pytest.raises(Cancelled):
            next(iter(stream))
    deadline = time.monotonic() + 5
    while any(slot["is_processing"] for slot in httpx2.get(f"{llama_url}/slots").json()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_choices_add_up_to_one(llama):
    asked = Question(text="Is the sky blue? Answer yes or no.")
    found = llama.choose(picture(), asked, ["Yes", "No"], adapter=None)
    assert list(found) == ["Yes", "No"]
    assert math.isclose(sum(found.values()), 1)


def test_options_that_begin_alike_are_refused(llama):
    asked = Question(text="Say yes.")
    with pytest.raises(UnsupportedError, match="do not tell the 2 options apart"):
        llama.choose(picture(), asked, ["Yes", "Yes, surely"], adapter=None)


def test_what_the_protocol_lacks_is_unsupported(llama):
    with pytest.raises(UnsupportedError, match="embeddings"):
        llama.embed(picture())
    with pytest.raises(UnsupportedError, match="evidence maps"):
        llama.evidence(picture(), ASK, "text", adapter=None)
    with pytest.raises(UnsupportedError, match="evidence maps"):
        llama.check(ASK, 16, evidence=True)
    with pytest.raises(UnsupportedError, match="probability of a given text"):
        llama.score(picture(), ASK, "text", adapter=None)


def test_a_question_beyond_the_context_says_how_many_pictures_fit(files):
    recipe = replace(RECIPES["plain"], max_slices=24, side=64, hidden=())
    options = ("--mmproj", files["eyes"], "--slots", "1", "--context", "256")
    with llama_cpp.running(*options) as url:
        backend = connect(url, recipe)
        with pytest.raises(RequestError, match=r"about (\d+) pictures fit") as found:
            answer(backend, volume())
        backend.close()
        fit = int(str(found.value).split("about ")[1].split()[0])
        assert 6 <= fit < 24
        backend = connect(url, recipe, limits={"pictures": fit})
        assert answer(backend, volume(), limit=2)
        backend.close()


def test_an_adapter_is_named_in_each_question(llama):
    llama.use_adapter("a-0001", NOWHERE)
    llama.use_adapter("a-0001", NOWHERE)
    base, adapted = answer(llama), answer(llama, adapter="a-0001")
    assert base != adapted
    assert answer(llama) == base
    llama.drop_adapter("a-0001")
    llama.drop_adapter("a-0001")
    with pytest.raises(AdapterError, match="load it first"):
        answer(llama, adapter="a-0001")


def test_an_adapter_that_changes_nothing_is_refused(llama):
    with pytest.raises(AdapterError, match="does not change the model's log-probabilities"):
        llama.use_adapter("a-0002", NOWHERE)


def test_an_adapter_that_the_server_was_not_started_with_is_refused(llama):
    with pytest.raises(AdapterError, match="--lora a-0009.gguf"):
        llama.use_adapter("a-0009", NOWHERE)


def test_the_prompt_cache_mixes_no_adapters(files):
    """llama.cpp's issue 26207: with one slot, a bare request gets an adapter's cached prompt."""
    options = ("--mmproj", files["eyes"], "--lora", files["adapter"], "--slots", "1")
    messages = [{"role": "user", "content": ORGAN.text}]

    def bare(url, **fields):
        body = {"messages": messages, "max_tokens": 12, "temperature": 0, **fields}
        reply = httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
        return reply["choices"][0]["message"]["content"]

    with llama_cpp.running(*options) as url:
        right = bare(url)
        bare(url, lora=[{"id": 0, "scale": 1.0}])
        assert bare(url) != right  # the bug, without the backend
    with llama_cpp.running(*options) as url:
        backend = connect(url)
        backend.use_adapter("a-0001", NOWHERE)
        right = answer(backend, question=ORGAN)
        assert answer(backend, question=ORGAN, adapter="a-0001") != right
        assert answer(backend, question=ORGAN) == right
        backend.close()


def test_a_text_model_refuses_pictures():
    with llama_cpp.running("--slots", "1") as url:
        backend = connect(url, name="text-only", limits={"connect_s": 1})
        with pytest.raises(UnsupportedError, match="text-only: takes no pictures"):
            backend.check(ASK, 16)
        with pytest.raises(UnsupportedError, match="takes no pictures"):
            answer(backend)
        assert backend.describe().max_images == 0
        backend.close()


def test_a_server_that_is_killed_ends_the_answer_with_an_error(files):
    with llama_cpp.running_process("--mmproj", files["eyes"], "--slots", "1") as (url, process):
        backend = connect(url, limits={"connect_s": 1})
        stream = backend.stream(picture(), ASK, adapter=None, limit=1500)
        next(iter(stream))
        process.kill()
        with pytest.raises(
            ModelServerError, match="connection broke before the answer was complete"
        ):
            list(stream)
        with pytest.raises(ModelServerUnreachableError, match="nothing accepts connections"):
            answer(backend)
        backend.close()


def test_a_key_is_needed_and_kept(files, caplog):
    key = "sk-very-secret-0123456789"
    caplog.set_level("DEBUG")
    with llama_cpp.running("--mmproj", files["eyes"], "--slots", "1", "--key", key) as url:
        with pytest.raises(ModelServerKeyError, match="refused the key"):
            connect(url, key="wrong")
        backend = connect(url, key=key)
        assert answer(backend, question=Question(text="A secret question?"))
        assert key not in repr(backend)
        backend.close()
    assert key not in caplog.text
    assert "secret question" not in caplog.text


def test_grey_values_arrive_as_the_recipe_made_them(llama, monkeypatch):
    sent = []
    monkeypatch.setattr(llama._connection, "chat_chunks", lambda body: sent.append(body) or _one())
    stream = llama.stream(picture(3), ASK, adapter=None, limit=4)
    list(stream)
    url = next(p for p in sent[0]["messages"][0]["content"] if p["type"] == "image_url")
    data = base64.b64decode(url["image_url"]["url"].partition(",")[2])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), stream.shown.pictures[0].pixels)


async def _one():
    yield {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}
