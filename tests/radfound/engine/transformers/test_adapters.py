import pytest

from radfound.exceptions import AdapterError

from ..tiny_models import FAMILIES, build_adapter


@pytest.mark.parametrize("family", FAMILIES)
def test_the_one_expression_names_language_layers_of_every_family(
    family, backends, folders, tmp_path
):
    folder = build_adapter(folders(family), tmp_path / "adapter")
    backends(family).use_adapter("a-0001", folder)
    backends(family).drop_adapter("a-0001")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_of_the_vision_encoder_is_refused_with_the_reason(
    family, backends, folders, tmp_path
):
    folder = build_adapter(folders(family), tmp_path / "adapter", target_modules="all-linear")
    with pytest.raises(
        AdapterError, match="is not of the language model; servers of models ignore"
    ):
        backends(family).use_adapter("a-0001", folder)


def test_an_adapter_that_saved_whole_layers_is_refused(backends, folders, tmp_path):
    folder = build_adapter(
        folders("gemma3"), tmp_path / "adapter", modules_to_save=["lm_head", "embed_tokens"]
    )
    with pytest.raises(AdapterError, match="holds whole layers .*train without modules_to_save"):
        backends("gemma3").use_adapter("a-0001", folder)


def test_an_adapter_of_another_model_is_refused(backends, folders, tmp_path):
    folder = build_adapter(folders("smolvlm"), tmp_path / "adapter")
    with pytest.raises(AdapterError, match="the base model has no such layer"):
        backends("llava").use_adapter("a-0001", folder)


def test_an_untrained_adapter_is_refused_because_it_changes_nothing(backends, folders, tmp_path):
    folder = build_adapter(folders("llava"), tmp_path / "adapter", scale=0.0)
    with pytest.raises(AdapterError, match="does not change the model's probabilities"):
        backends("llava").use_adapter("a-0001", folder)
