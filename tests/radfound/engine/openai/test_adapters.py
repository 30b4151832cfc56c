"""Adapters that a server loads while it runs."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from radfound.exceptions import AdapterError, UnsupportedError
from radfound.question import Question
from radfound.records.adapter_weights import CONFIG_FILE, WEIGHTS_FILE
from tests.radfound.engine.openai.conftest import connect, picture, text_of

LANGUAGE = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
VISION = "base_model.model.model.vision_tower.encoder.layers.0.self_attn.q_proj"


def written(folder: Path, *modules: str, **more) -> Path:
    folder.mkdir()
    tensors = dict(more)
    for module in modules:
        tensors[f"{module}.lora_A.weight"] = np.ones((2, 8), np.float32)
        tensors[f"{module}.lora_B.weight"] = np.ones((8, 2), np.float32)
    save_file(tensors, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps({"peft_type": "LORA", "r": 2}))
    return folder


@pytest.fixture
def vllm(scripted):
    scripted.load_adapters_while_running()
    made = connect(scripted.url)
    yield made
    made.close()


def ask(backend, adapter):
    return text_of(backend.stream(picture(), Question(text="?"), adapter=adapter, limit=9))


def test_an_adapter_is_loaded_by_a_name_of_its_weights_and_named_in_the_question(
    vllm, scripted, tmp_path
):
    assert vllm.describe().abilities.adapters == "while running"
    folder = written(tmp_path / "a-0001", LANGUAGE)
    vllm.use_adapter("a-0001", folder)
    (name,) = scripted.adapters
    assert name.startswith("radfound-a-0001-")
    assert scripted.adapters[name] == str(folder)
    ask(vllm, "a-0001")
    assert scripted.requests[-1]["model"] == name
    ask(vllm, None)
    assert scripted.requests[-1]["model"] == "m"
    vllm.drop_adapter("a-0001")
    assert scripted.adapters == {}


def test_an_adapter_that_another_process_has_loaded_is_used(scripted, vllm, tmp_path):
    folder = written(tmp_path / "a-0001", LANGUAGE)
    vllm.use_adapter("a-0001", folder)
    other = connect(scripted.url, adapter_folder="/mnt/adapters")
    other.use_adapter("a-0001", folder)
    assert ask(other, "a-0001")
    other.close()


def test_the_server_may_see_the_folder_elsewhere(scripted, tmp_path):
    scripted.load_adapters_while_running()
    backend = connect(scripted.url, adapter_folder="/mnt/adapters")
    backend.use_adapter("a-0001", written(tmp_path / "a-0001", LANGUAGE))
    assert list(scripted.adapters.values()) == ["/mnt/adapters/a-0001"]
    backend.close()


def test_an_adapter_that_the_server_does_not_apply_is_refused_and_unloaded(
    vllm, scripted, tmp_path
):
    scripted.applies_adapters = False
    with pytest.raises(AdapterError, match="does not change the model's log-probabilities"):
        vllm.use_adapter("a-0001", written(tmp_path / "a-0001", LANGUAGE))
    assert scripted.adapters == {}


@pytest.mark.parametrize(
    ("modules", "more", "words"),
    [
        ((LANGUAGE, VISION), {}, "vision_tower.* is not of the language model"),
        (
            (LANGUAGE,),
            {"base_model.model.lm_head.weight": np.ones((4, 4), np.float32)},
            "holds whole layers .*lm_head.*without modules_to_save",
        ),
    ],
)
def test_an_adapter_beyond_the_language_model_is_refused_with_the_reason(
    vllm, scripted, tmp_path, modules, more, words
):
    with pytest.raises(AdapterError, match=words):
        vllm.use_adapter("a-0001", written(tmp_path / "a-0001", *modules, **more))
    assert scripted.adapters == {}


def test_questions_of_different_adapters_are_never_with_the_server_together(
    vllm, scripted, tmp_path
):
    """vLLM on a CPU answers for the base model with the adapter of another question in the batch."""
    vllm.use_adapter("a-0001", written(tmp_path / "a-0001", LANGUAGE))
    at_once, together = [], []

    async def slow(model):
        at_once.append(model)
        together.append(set(at_once))
        await asyncio.sleep(0.05)
        async for each in scripted.answer():
            yield each
        at_once.remove(model)

    async def script(body):
        return scripted.streamed(slow(body["model"]))

    scripted.script = script
    asked = (None, "a-0001", None, None, "a-0001", "a-0001")
    study, question = picture(), Question(text="?")
    streams = [vllm.stream(study, question, adapter=each, limit=9) for each in asked]
    streams[2].cancel()
    answers = [text_of(stream) for n, stream in enumerate(streams) if n != 2]
    assert answers == ["No effusion is seen."] * 5
    assert all(len(models) == 1 for models in together)


def test_a_server_without_adapters_says_so(backend, tmp_path):
    with pytest.raises(UnsupportedError, match="--enable-lora"):
        backend.use_adapter("a-0001", tmp_path)
