import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from radfound.exceptions import CheckpointError
from radfound.model.sizes import SIZES, new_model, size_config


@pytest.mark.parametrize("name", SIZES)
def test_a_size_survives_being_saved(name, tmp_path):
    config = size_config(name)
    config.save_pretrained(tmp_path)
    again = type(config).from_pretrained(tmp_path)
    assert again.vision_config.hidden_size == config.vision_config.hidden_size
    assert again.text_config.num_hidden_layers == config.text_config.num_hidden_layers
    assert config.image_token_id == config.text_config.vocab_size


def test_any_causal_language_model_fits_a_size(tmp_path):
    small = LlamaConfig(
        vocab_size=77, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    LlamaForCausalLM(small).save_pretrained(tmp_path)
    model = new_model("radfound-base", tmp_path)
    assert model.config.image_token_id == 77
    pixels = torch.rand(1, 2, 3, 256, 256)
    ids = torch.tensor([[1, *[77] * 64, 2]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = model(input_ids=ids, pixel_values=pixels)
    assert out.logits.shape == (1, 66, 77) and out.logits.isfinite().all()


def test_a_new_model_is_random_where_it_has_to_learn():
    model = new_model("radfound-base")
    for name, parameter in (
        *model.vision_model.named_parameters(),
        *model.connector.named_parameters(),
    ):
        assert not parameter.is_meta and parameter.isfinite().all(), name
    assert model.connector.queries.std() > 0.01
    assert model.connector.layers[0].mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert all(p.is_meta for p in model.language_model.parameters())


def test_what_cannot_be_had_is_a_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match="radfound-huge: no such size"):
        new_model("radfound-huge")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        new_model("radfound-base", tmp_path / "none")
