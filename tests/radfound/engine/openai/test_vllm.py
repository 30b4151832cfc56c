"""The backend on vLLM itself, where its environment is (`make test-engines`); see also the contract suite."""

import pytest

from radfound.exceptions import AdapterError, RequestError
from radfound.question import Question
from tests.radfound.engine.openai import engines
from tests.radfound.engine.openai.conftest import connect, picture, text_of, volume
from tests.radfound.engine.tiny_models import build, build_adapter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not engines.PYTHON, reason="no environment of vLLM: make test-engines"),
]
ASK = Question(text="What is shown?")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vllm")
    build("qwen2_vl", folder / "model", head=64)
    return folder


@pytest.fixture(scope="module")
def vllm(home):
    with engines.running_vllm(home / "model", home) as url:
        backend = connect(url)
        yield backend
        backend.close()


def test_the_limit_of_pictures_is_learnt_from_the_server(vllm):
    stream = vllm.stream(volume(), ASK, adapter=None, limit=4)
    assert text_of(stream) is not None
    assert len(stream.shown.pictures) == engines.MOST_PICTURES
    assert stream.shown.note == f"{engines.MOST_PICTURES} of 24 slices"


def test_the_stop_token_has_its_probability_or_the_answer_is_cut_off(vllm):
    tokens = list(vllm.stream(picture(), ASK, adapter=None, limit=4))
    assert all(token.log_probability is not None for token in tokens)


def test_an_adapter_of_the_vision_encoder_is_refused_with_the_reason(vllm, home, tmp_path):
    adapter = build_adapter(home / "model", tmp_path / "a-0001", target_modules="all-linear")
    with pytest.raises(AdapterError, match="not of the language model"):
        vllm.use_adapter("a-0001", adapter)


def test_an_overrun_says_what_does_not_fit(vllm):
    with pytest.raises(RequestError, match="does not fit"):
        text_of(vllm.stream(picture(), Question(text="word " * 3000), adapter=None, limit=4))
