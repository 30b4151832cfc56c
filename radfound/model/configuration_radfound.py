"""Configuration of RadFound in Hugging Face form."""

from __future__ import annotations

import math
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from radfound.study.frames import PLANES, VIEWS

STEMS = ("patch", "efficientnet_lite0")


class RadFoundVisionConfig(PreTrainedConfig):
    """Configuration of `RadFoundVisionModel`.

    Parameters
    ----------
    image_size, patch_size : int
        Side of a frame and of a patch, in pixels.
    stem : {"patch", "efficientnet_lite0"}
        Patch embedding: one linear layer, or the convolutions of EfficientNet-Lite0 (stride 32).
    num_hidden_layers, num_context_layers : int
        Layers that attend within one frame, and layers that attend across the frames of a study.
    position_scale_mm : float
        The longest wavelength of the position embedding is 2 pi times this.
    num_planes, num_views : int
        Sizes of the plane and view embeddings.
    """

    model_type = "radfound_vision"
    base_config_key = "vision_config"

    def __init__(
        self,
        image_size: int = 256,
        patch_size: int = 32,
        stem: str = "efficientnet_lite0",
        hidden_size: int = 384,
        intermediate_size: int = 1536,
        num_hidden_layers: int = 4,
        num_context_layers: int = 2,
        num_attention_heads: int = 6,
        hidden_dropout_prob: float = 0.0,
        layer_norm_eps: float = 1e-6,
        position_scale_mm: float = 500.0,
        num_planes: int = len(PLANES),
        num_views: int = len(VIEWS),
        initializer_range: float = 0.02,
        **kwargs: Any,
    ):
        if stem not in STEMS:
            raise ValueError(f"stem is {stem!r}; expected one of {STEMS}")
        if image_size % patch_size:
            raise ValueError(
                f"image_size {image_size} is not a multiple of patch_size {patch_size}"
            )
        if stem == "efficientnet_lite0" and patch_size != 32:
            raise ValueError(f"the efficientnet_lite0 stem has patch_size 32, found {patch_size}")
        self.image_size = image_size
        self.patch_size = patch_size
        self.stem = stem
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_context_layers = num_context_layers
        self.num_attention_heads = num_attention_heads
        self.hidden_dropout_prob = hidden_dropout_prob
        self.layer_norm_eps = layer_norm_eps
        self.position_scale_mm = position_scale_mm
        self.num_planes = num_planes
        self.num_views = num_views
        self.initializer_range = initializer_range
        super().__init__(**kwargs)

    @property
    def patches_per_frame(self) -> int:
        """Tokens of one frame."""
        return (self.image_size // self.patch_size) ** 2


class RadFoundConfig(PreTrainedConfig):
    """Configuration of `RadFoundForConditionalGeneration`.

    Parameters
    ----------
    vision_config : RadFoundVisionConfig or dict
    text_config : PreTrainedConfig or dict
        Of any causal language model that `AutoModelForCausalLM` knows.
    num_visual_tokens : int
        Visual tokens of a study, independent of its number of frames.
    num_grid_tokens : int
        How many of them are cells of the stem's feature grid, which the encoder's layers do not touch; a square
        number, or 0 for none. They come last.
    num_connector_layers : int
        Layers of the resampler.
    image_token_id : int
        Id of the placeholder that visual tokens replace.
    """

    model_type = "radfound"
    sub_configs = {"vision_config": RadFoundVisionConfig, "text_config": AutoConfig}

    def __init__(
        self,
        vision_config: RadFoundVisionConfig | dict[str, Any] | None = None,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        num_visual_tokens: int = 32,
        num_connector_layers: int = 2,
        image_token_id: int = 49152,
        num_grid_tokens: int = 0,
        **kwargs: Any,
    ):
        if num_grid_tokens != math.isqrt(num_grid_tokens) ** 2:
            raise ValueError(f"num_grid_tokens is {num_grid_tokens}; expected a square number or 0")
        if num_grid_tokens >= num_visual_tokens:
            raise ValueError(
                f"num_grid_tokens is {num_grid_tokens}; expected less than num_visual_tokens, {num_visual_tokens}"
            )
        if vision_config is None or isinstance(vision_config, dict):
            vision_config = RadFoundVisionConfig(**(vision_config or {}))
        if text_config is None or isinstance(text_config, dict):
            fields = dict(text_config or {})
            text_config = AutoConfig.for_model(fields.pop("model_type", "llama"), **fields)
        self.vision_config: Any = vision_config
        self.text_config: Any = text_config
        self.num_visual_tokens = num_visual_tokens
        self.num_grid_tokens = num_grid_tokens
        self.num_connector_layers = num_connector_layers
        self.image_token_id = image_token_id
        kwargs.setdefault("tie_word_embeddings", getattr(text_config, "tie_word_embeddings", False))
        super().__init__(**kwargs)
