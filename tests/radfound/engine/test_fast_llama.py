"""What writes quickly must write what transformers and peft would."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from pydicom.data import get_testdata_file
from transformers import AutoModelForCausalLM, Qwen2Config

from radfound.engine.local.fast_llama import Llama, UnknownWeights
from radfound.engine.local.model import LocalModel
from radfound.question import Question
from radfound.reading import read_study
from radfound.study.study import Study, StudyImage

QUESTIONS = ["Why?", "What is shown in this image of the chest?", "Is there air?"]
ASKED = [
    "Which imaging modality is this?",
    "In which plane is this image?",
    "Which body region is shown?",
    "Is there a fracture?",
    "Is the heart enlarged?",
    "What is abnormal, and where?",
]


def random_adapter(language_model, **settings):
    """A LoRA adapter around a model, far from nothing, on some of what it may be on."""
    torch.manual_seed(1)
    targets = ["q_proj", "v_proj", "o_proj", "down_proj", "up_proj", "lm_head"]
    wrapped = get_peft_model(language_model, LoraConfig(target_modules=targets, r=4, **settings))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return wrapped.eval()


@pytest.fixture
def local():
    return LocalModel.load("radfound-tiny")


def encoded(local, seed=0):
    voxels = np.random.default_rng(seed).integers(0, 99, (3, 20, 20)).astype(np.int16)
    return local.encode(Study((StudyImage(voxels, np.eye(4)),)))


def written_side_by_side(local, tokens=12):
    """Answers about three studies, with questions of three lengths."""
    studies = [encoded(local, seed) for seed in range(len(QUESTIONS))]
    return local.generate(studies, [Question("vqa", question) for question in QUESTIONS], tokens)


def assert_same(found, expected, **tolerance):
    assert [one.text for one in found] == [one.text for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.log_probabilities == pytest.approx(other.log_probabilities, **tolerance)
        assert one.entropies == pytest.approx(other.entropies, **tolerance)


def test_a_processor_that_cannot_pack_bfloat16_writes_the_same(local, monkeypatch):
    local.model.to(torch.bfloat16)
    expected = written_side_by_side(local, 4)
    monkeypatch.setattr("radfound.engine.local.fast_llama._can_pack_bfloat16", lambda: False)
    local.tune()
    assert_same(written_side_by_side(local, 4), expected, abs=0.1)


@pytest.mark.parametrize("adapted", [False, True], ids=["base", "adapter"])
def test_a_tuned_model_writes_what_transformers_writes(local, adapted):
    if adapted:
        local.model.language_model = random_adapter(local.model.language_model)
    expected = written_side_by_side(local)
    local.tune()
    assert_same(written_side_by_side(local), expected, abs=1e-4)
    assert isinstance(local._forward_function, Llama)


def test_an_adapter_that_is_loaded_later_counts(local, tmp_path):
    base = written_side_by_side(local)
    adapted = random_adapter(LocalModel.load("radfound-tiny").model.language_model)
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)
    local.load_adapter(tmp_path)
    adapted = written_side_by_side(local)
    assert adapted != base
    local.tune()
    assert_same(written_side_by_side(local), adapted, abs=1e-4)
    local.load_adapter(None)
    assert_same(written_side_by_side(local), base, abs=1e-4)


def test_queries_without_shared_keys_and_layers_with_biases_are_read_alike():
    local = LocalModel.load("radfound-tiny")
    config = local.model.config.text_config
    config.num_key_value_heads, config.attention_bias, config.mlp_bias = 2, True, True
    config.rope_parameters = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    torch.manual_seed(2)
    local.model.language_model = AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in local.model.language_model.named_parameters():
        if "bias" in name or "norm" in name:
            torch.nn.init.normal_(parameter)
    expected = written_side_by_side(local)
    local.tune()
    assert_same(written_side_by_side(local), expected, abs=1e-4)
    assert isinstance(local._forward_function, Llama)


def test_another_architecture_and_a_variant_of_lora_are_left_to_transformers(local):
    dora = random_adapter(LocalModel.load("radfound-tiny").model.language_model, use_dora=True)
    qwen = AutoModelForCausalLM.from_config(
        Qwen2Config(
            vocab_size=local.vocabulary, hidden_size=32, intermediate_size=64,
            num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        )
    ).eval()  # fmt: skip
    for model in (dora, qwen):
        with pytest.raises(UnknownWeights):
            Llama(model)
        local.model.language_model = model
        local.tune()
        assert len(written_side_by_side(local, 3)) == len(QUESTIONS)


@pytest.fixture(scope="module")
def mini():
    return LocalModel.load("radfound-mini")


def said(local, file, prompts, dtype):
    """What the shipped model writes about a study."""
    local.model.to(dtype)
    study = local.encode(read_study(file))
    return local.generate([study] * len(prompts), prompts, 16, batch_size=1)


def in_both_ways(local, *what):
    """What is said by transformers, and when tuned."""
    local._is_tuned, local._forward_function = False, None
    plainly = said(local, *what)
    local.tune()
    return plainly, said(local, *what)


def sample(name):
    return get_testdata_file(f"{name}_small.dcm", download=False)


def test_the_shipped_model_answers_the_same_when_tuned(mini):
    # In bfloat16 a long text can turn at a tie, as it does between two ways to call transformers.
    short = [Question("vqa", question) for question in ASKED[:2]]
    plainly, tuned = in_both_ways(mini, sample("CT"), short, torch.bfloat16)
    assert_same(tuned, plainly, abs=0.2)


@pytest.mark.slow
def test_the_shipped_model_says_the_same_in_float32_about_everything(mini):
    nilearn = Path(importlib.util.find_spec("nilearn").submodule_search_locations[0])
    brain = nilearn / "datasets" / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    prompts = [*(Question("vqa", question) for question in ASKED), Question("caption")]
    for file in (brain, sample("CT"), sample("MR")):
        plainly, tuned = in_both_ways(mini, file, prompts, torch.float32)
        assert_same(tuned, plainly, abs=1e-2)
