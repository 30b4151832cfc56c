"""Model sizes for training on GPUs: configurations, and new models.

`radfound-mini` and `radfound-tiny` are in `radfound.model.checkpoints`. The sizes here have no trained
weights: the language model comes from a folder or the hub, vision encoder and connector are trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from radfound.exceptions import CheckpointError
from radfound.model.configuration_radfound import RadFoundConfig, RadFoundVisionConfig
from radfound.model.modeling_radfound import (
    RadFoundConnector,
    RadFoundForConditionalGeneration,
    RadFoundVisionModel,
)

# ViT-Base and ViT-Large (arXiv 2010.11929) with layers across frames; language models of the shapes of
# Qwen2.5-1.5B and Qwen2.5-7B (arXiv 2412.15115).
_SIZES: dict[str, dict[str, Any]] = {
    "radfound-base": {
        "vision": dict(
            image_size=256, patch_size=16, hidden_size=768, intermediate_size=3072,
            num_hidden_layers=12, num_context_layers=4, num_attention_heads=12,
        ),
        "text": dict(
            model_type="qwen2", vocab_size=151936, hidden_size=1536, intermediate_size=8960,
            num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
            max_position_embeddings=32768, rope_theta=1e6, tie_word_embeddings=True,
        ),
        "num_visual_tokens": 64,
        "num_connector_layers": 3,
    },
    "radfound-7b": {
        "vision": dict(
            image_size=384, patch_size=16, hidden_size=1024, intermediate_size=4096,
            num_hidden_layers=24, num_context_layers=4, num_attention_heads=16,
        ),
        "text": dict(
            model_type="qwen2", vocab_size=152064, hidden_size=3584, intermediate_size=18944,
            num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
            max_position_embeddings=32768, rope_theta=1e6, tie_word_embeddings=False,
        ),
        "num_visual_tokens": 128,
        "num_connector_layers": 6,
    },
}  # fmt: skip
SIZES = tuple(_SIZES)


def size_config(name: str, text_config: PreTrainedConfig | None = None) -> RadFoundConfig:
    """Return the configuration of a size.

    Parameters
    ----------
    name : str
        One of `SIZES`.
    text_config : PreTrainedConfig, optional
        Of any causal language model, instead of the size's own.

    Raises
    ------
    CheckpointError
        If there is no such size.
    """
    if name not in _SIZES:
        raise CheckpointError(f"{name}: no such size; expected one of {', '.join(SIZES)}")
    size = _SIZES[name]
    text: Any = size["text"] if text_config is None else text_config
    vocabulary = text["vocab_size"] if isinstance(text, dict) else text.vocab_size
    return RadFoundConfig(
        RadFoundVisionConfig(stem="patch", **size["vision"]),
        text,
        num_visual_tokens=size["num_visual_tokens"],
        num_connector_layers=size["num_connector_layers"],
        image_token_id=vocabulary,  # the first id outside the language model's vocabulary
    )


def new_model(
    name: str, language_model: str | Path | None = None
) -> RadFoundForConditionalGeneration:
    """Return a size with fresh vision encoder and connector, in float32.

    Parameters
    ----------
    name : str
        One of `SIZES`.
    language_model : str or Path, optional
        Folder or hub id of a causal language model, loaded in bfloat16. By default the language model is on
        the meta device: enough to train the vision encoder, or to count parameters.

    Raises
    ------
    CheckpointError
        If there is no such size or language model.
    """
    text_config, loaded = None, None
    if language_model is not None:
        try:
            text_config = AutoConfig.from_pretrained(language_model, trust_remote_code=False)
            loaded = AutoModelForCausalLM.from_pretrained(
                language_model, dtype=torch.bfloat16, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{language_model}: cannot be loaded ({error}); expected the folder or hub id of a "
                "causal language model"
            ) from error
    config = size_config(name, text_config)
    # Initialising billions of random weights would take minutes, only to be replaced.
    with torch.device("meta"):
        model = RadFoundForConditionalGeneration(config)
    model.vision_model = RadFoundVisionModel(config.vision_config)
    model.connector = RadFoundConnector(config)
    model.connector.apply(model._init_weights)
    if loaded is not None:
        model.language_model = loaded
    return model
