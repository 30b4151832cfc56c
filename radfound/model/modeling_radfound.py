"""RadFound in PyTorch: vision encoder, resampler and language model, in Hugging Face form.

Frames are encoded one by one (intra-image layers), then together (inter-image context layers). A fixed
number of learned queries resamples them into the language model's embedding space. Beside these, cells of the
stem's feature grid can go to the language model without passing the encoder's layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationMixin,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import ModelOutput

from radfound.model.configuration_radfound import RadFoundConfig, RadFoundVisionConfig
from radfound.model.stem import STEM_CHANNELS, EfficientNetLite0Stem


@dataclass
class RadFoundVisionOutput(ModelOutput):
    """Tokens of a study's frames.

    Parameters
    ----------
    last_hidden_state : tensor, shape (B, F, N, hidden_size)
        After the context layers; undefined for padding frames.
    frame_hidden_state : tensor, shape (B, F, N, hidden_size)
        Before the context layers: each frame on its own.
    stem_features : tensor, shape (B, F, C, H, W)
        Before all layers.
    """

    last_hidden_state: torch.Tensor | None = None
    frame_hidden_state: torch.Tensor | None = None
    stem_features: torch.Tensor | None = None


@dataclass
class RadFoundOutputWithPast(CausalLMOutputWithPast):
    """`CausalLMOutputWithPast` with the visual tokens, shape (B, num_visual_tokens, text hidden_size)."""

    visual_embeds: torch.Tensor | None = None


class PatchStem(nn.Module):
    """One linear embedding of each square of pixels, as in ViT (arXiv 2010.11929)."""

    def __init__(self, patch_size: int, hidden_size: int):
        super().__init__()
        self.projection = nn.Conv2d(3, hidden_size, patch_size, patch_size)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map (B, 3, H, W) to (B, hidden_size, H / patch_size, W / patch_size)."""
        return self.projection(pixels)


class Attention(nn.Module):
    """Multi-head self-attention or cross-attention."""

    def __init__(self, width: int, heads: int, context_width: int | None = None):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(context_width or width, 2 * width)
        self.output = nn.Linear(width, width)
        # If a list, attention weights of shape (B, heads, T, S) are appended to it.
        self.seen: list[torch.Tensor] | None = None

    def forward(
        self,
        hidden: torch.Tensor,
        context: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend from (B, T, width) to (B, S, context width); mask (B, S) is False for padding."""
        batch, length, width = hidden.shape
        source = hidden if context is None else context
        query = self.query(hidden).view(batch, length, self.heads, -1).transpose(1, 2)
        key, value = (
            self.key_value(source)
            .view(batch, source.shape[1], 2, self.heads, -1)
            .permute(2, 0, 3, 1, 4)
        )
        visible = None if mask is None else mask[:, None, None, :]
        if self.seen is None:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        else:
            mixed = self._attend_and_record(query, key, value, visible)
        return self.output(mixed.transpose(1, 2).reshape(batch, length, width))

    def _attend_and_record(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Compute `scaled_dot_product_attention` and record its weights."""
        assert self.seen is not None
        scores = (query @ key.transpose(-2, -1)).float() / query.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        weights = scores.softmax(-1)
        self.seen.append(weights)
        return weights.to(value.dtype) @ value


class Layer(nn.Module):
    """Pre-norm transformer layer with self-attention, or cross-attention if `cross`."""

    def __init__(self, config: RadFoundVisionConfig, cross: bool = False):
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.attention_norm = nn.LayerNorm(width, eps)
        self.context_norm = nn.LayerNorm(width, eps) if cross else None
        self.attention = Attention(width, config.num_attention_heads)
        self.mlp_norm = nn.LayerNorm(width, eps)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.intermediate_size),
            nn.GELU(),
            nn.Linear(config.intermediate_size, width),
        )
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden: torch.Tensor,
        context: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map (B, T, width) to the same shape."""
        if context is not None and self.context_norm is not None:
            context = self.context_norm(context)
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), context, mask))
        return hidden + self.dropout(self.mlp(self.mlp_norm(hidden)))


class FramePlace(nn.Module):
    """Embeds the position (mm), plane and view of a frame.

    All weights start at zero, so at first the embedding has no effect.
    """

    num_wavelengths = 8

    def __init__(self, config: RadFoundVisionConfig):
        super().__init__()
        self.scale_mm = config.position_scale_mm
        self.plane = nn.Embedding(config.num_planes, config.hidden_size)
        self.view = nn.Embedding(config.num_views, config.hidden_size)
        self.position = nn.Linear(6 * self.num_wavelengths, config.hidden_size)

    def forward(
        self, positions_mm: torch.Tensor, planes: torch.Tensor, views: torch.Tensor
    ) -> torch.Tensor:
        """Map (B, F, 3), (B, F) and (B, F) to (B, F, hidden_size)."""
        octaves = 2.0 ** torch.arange(
            self.num_wavelengths, device=positions_mm.device, dtype=torch.float32
        )
        angles = positions_mm.float()[..., None] * octaves / self.scale_mm
        waves = torch.cat([angles.sin(), angles.cos() - 1.0], dim=-1).flatten(-2)
        return (
            self.position(waves.to(self.position.weight.dtype))
            + self.plane(planes)
            + self.view(views)
        )


class RadFoundPreTrainedModel(PreTrainedModel):
    """Weight initialisation and Hugging Face settings."""

    config_class: Any = RadFoundConfig
    base_model_prefix = "model"
    _no_split_modules = ["Layer", "InvertedResidual"]
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        vision: Any = getattr(self.config, "vision_config", self.config)
        if isinstance(module, FramePlace):
            for part in (module.plane, module.view, module.position):
                nn.init.zeros_(part.weight)
            nn.init.zeros_(module.position.bias)
            return
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, RadFoundVisionModel):
            nn.init.normal_(module.patch_position, std=vision.initializer_range)
        elif isinstance(module, RadFoundConnector):
            nn.init.normal_(module.queries, std=vision.initializer_range)


class RadFoundVisionModel(RadFoundPreTrainedModel):
    """Vision encoder: intra-image layers on each frame, then inter-image layers over all of them."""

    config_class = RadFoundVisionConfig
    base_model_prefix = "vision_model"
    main_input_name = "pixel_values"

    def __init__(self, config: RadFoundVisionConfig):
        super().__init__(config)
        if config.stem == "efficientnet_lite0":
            self.stem: nn.Module = EfficientNetLite0Stem()
            self.stem_projection: nn.Module = nn.Linear(STEM_CHANNELS, config.hidden_size)
        else:
            self.stem = PatchStem(config.patch_size, config.hidden_size)
            self.stem_projection = nn.Identity()
        self.patch_position = nn.Parameter(
            torch.zeros(config.patches_per_frame, config.hidden_size)
        )
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.frame_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.place = FramePlace(config)
        self.context_layers = nn.ModuleList(Layer(config) for _ in range(config.num_context_layers))
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.post_init()

    def stem_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Map frames (M, 3, S, S), grey values in [0, 1], to stem features (M, C, H, W)."""
        return self.stem(pixel_values.to(self.dtype) * 2.0 - 1.0)

    def look_inside(
        self, stem_features: torch.Tensor, keep: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run the intra-image layers on frames, each on its own.

        Parameters
        ----------
        stem_features : tensor, shape (M, C, H, W)
        keep : int64 tensor, shape (M, K), optional
            The patches of each frame to encode; all by default.

        Returns
        -------
        tensor, shape (M, K or H * W, hidden_size)
        """
        tokens = self.stem_projection(stem_features.flatten(-2).transpose(-1, -2))
        tokens = tokens + self.patch_position
        if keep is not None:
            tokens = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[-1]))
        for layer in self.layers:
            tokens = layer(tokens)
        return self.frame_norm(tokens)

    def look_across(self, tokens: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Run the inter-image layers on the tokens of all frames of a study, positions added.

        Parameters
        ----------
        tokens : tensor, shape (B, T, hidden_size)
        token_mask : bool tensor, shape (B, T)
            False where a token is padding.

        Returns
        -------
        tensor, shape (B, T, hidden_size)
        """
        for layer in self.context_layers:
            tokens = layer(tokens, mask=token_mask)
        return self.norm(tokens)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        positions_mm: torch.Tensor | None = None,
        planes: torch.Tensor | None = None,
        views: torch.Tensor | None = None,
        stem_features: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> RadFoundVisionOutput:
        """Encode studies.

        Parameters
        ----------
        pixel_values : tensor, shape (B, F, 3, S, S), grey values in [0, 1]
        frame_mask : bool tensor, shape (B, F), optional
            False where a frame is padding. A black frame that is data stays True.
        positions_mm, planes, views : tensors, shapes (B, F, 3), (B, F), (B, F), optional
            As in `radfound.study.frames.Frames`; unknown by default.
        stem_features : tensor, shape (B, F, C, H, W), optional
            Precomputed output of the stem, instead of `pixel_values`.

        Returns
        -------
        RadFoundVisionOutput
        """
        if stem_features is None:
            if pixel_values is None:
                raise ValueError("neither pixel_values nor stem_features given")
            stem_features = self.stem_features(pixel_values.flatten(0, 1)).unflatten(
                0, pixel_values.shape[:2]
            )
        batch, frames = stem_features.shape[:2]
        device = stem_features.device
        if frame_mask is None:
            frame_mask = torch.ones(batch, frames, dtype=torch.bool, device=device)
        if positions_mm is None:
            positions_mm = torch.zeros(batch, frames, 3, device=device)
        unknown = torch.zeros(batch, frames, dtype=torch.long, device=device)
        alone = self.look_inside(stem_features.flatten(0, 1)).unflatten(0, (batch, frames))
        place = self.place(
            positions_mm, unknown if planes is None else planes, unknown if views is None else views
        )
        together = (alone + place[:, :, None]).flatten(1, 2)
        token_mask = frame_mask.bool().repeat_interleave(alone.shape[2], dim=1)
        together = self.look_across(together, token_mask).unflatten(1, (frames, alone.shape[2]))
        return RadFoundVisionOutput(
            last_hidden_state=together, frame_hidden_state=alone, stem_features=stem_features
        )


class GridProjector(nn.Module):
    """One token for each cell of the stem's feature grid, averaged over the frames of a study."""

    def __init__(self, config: RadFoundConfig):
        super().__init__()
        vision, width = config.vision_config, config.text_config.hidden_size
        channels = STEM_CHANNELS if vision.stem == "efficientnet_lite0" else vision.hidden_size
        self.side = math.isqrt(config.num_grid_tokens)
        self.norm = nn.LayerNorm(channels, vision.layer_norm_eps)
        self.position = nn.Parameter(torch.zeros(config.num_grid_tokens, width))
        self.projector = nn.Sequential(
            nn.Linear(channels, width), nn.GELU(), nn.Linear(width, width)
        )

    def cells(self, stem_features: torch.Tensor) -> torch.Tensor:
        """Average stem features (M, C, H, W) over the cells of the grid: (M, cells, C)."""
        return F.adaptive_avg_pool2d(stem_features, self.side).flatten(-2).transpose(-1, -2)

    def forward(self, cells: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
        """Map (B, F, cells, C) and (B, F) to (B, cells, text width)."""
        weight = frame_mask.to(cells.dtype)[..., None, None]
        mean = (cells * weight).sum(1) / weight.sum(1).clamp(min=1.0)
        return self.projector(self.norm(mean)) + self.position


class RadFoundConnector(nn.Module):
    """Resampler (after Flamingo, arXiv 2204.14198) and projector: any number of frames, a fixed number of tokens."""

    def __init__(self, config: RadFoundConfig):
        super().__init__()
        vision = config.vision_config
        resampled = config.num_visual_tokens - config.num_grid_tokens
        self.queries = nn.Parameter(torch.zeros(resampled, vision.hidden_size))
        self.layers = nn.ModuleList(
            Layer(vision, cross=True) for _ in range(config.num_connector_layers)
        )
        self.norm = nn.LayerNorm(vision.hidden_size, vision.layer_norm_eps)
        text_width = config.text_config.hidden_size
        self.projector = nn.Sequential(
            nn.Linear(vision.hidden_size, text_width), nn.GELU(), nn.Linear(text_width, text_width)
        )
        self.grid = GridProjector(config) if config.num_grid_tokens else None

    def resample(self, hidden: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
        """Map (B, F, N, vision width) and (B, F) to (B, queries, vision width)."""
        mask = frame_mask.bool().repeat_interleave(hidden.shape[2], dim=1)
        context = hidden.flatten(1, 2)
        queries = self.queries.expand(hidden.shape[0], -1, -1)
        for layer in self.layers:
            queries = layer(queries, context, mask)
        return self.norm(queries)

    def cells(self, stem_features: torch.Tensor) -> torch.Tensor | None:
        """Average stem features (B, F, C, H, W) over the grid: (B, F, cells, C); None without grid tokens."""
        if self.grid is None:
            return None
        return self.grid.cells(stem_features.flatten(0, 1)).unflatten(0, stem_features.shape[:2])

    def forward(
        self, hidden: torch.Tensor, frame_mask: torch.Tensor, cells: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the visual tokens of studies.

        Parameters
        ----------
        hidden : tensor, shape (B, F, N, vision width)
        frame_mask : bool tensor, shape (B, F)
        cells : tensor, shape (B, F, cells, C)
            As `cells` returns them; None without grid tokens.

        Returns
        -------
        tensor, shape (B, num_visual_tokens, text width)
        """
        tokens = self.projector(self.resample(hidden, frame_mask))
        if self.grid is None or cells is None:
            return tokens
        return torch.cat([tokens, self.grid(cells.to(tokens.dtype), frame_mask)], dim=1)


class RadFoundForConditionalGeneration(RadFoundPreTrainedModel, GenerationMixin):
    """A study and a text prompt in, text out.

    The prompt holds `config.num_visual_tokens` placeholders (`config.image_token_id`) where the study goes.
    """

    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    _vision_inputs = (
        "pixel_values",
        "frame_mask",
        "positions_mm",
        "planes",
        "views",
        "stem_features",
    )

    def __init__(self, config: RadFoundConfig):
        super().__init__(config)
        self.vision_model = RadFoundVisionModel(config.vision_config)
        self.connector = RadFoundConnector(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the language model's token embedding."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's token embedding."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the language model's head."""
        return self.language_model.get_output_embeddings()

    def get_image_features(
        self, frame_mask: torch.Tensor | None = None, **inputs: torch.Tensor
    ) -> torch.Tensor:
        """Return the visual tokens of studies, shape (B, num_visual_tokens, text hidden_size).

        Parameters as for `RadFoundVisionModel.forward`.
        """
        seen = self.vision_model(frame_mask=frame_mask, **inputs)
        hidden = seen.last_hidden_state
        if frame_mask is None:
            frame_mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        return self.connector(hidden, frame_mask, self.connector.cells(seen.stem_features))

    def merge_visual_embeds(
        self, input_ids: torch.Tensor, visual_embeds: torch.Tensor
    ) -> torch.Tensor:
        """Return the embedded prompt, shape (B, L, text hidden_size), with visual tokens at their placeholders.

        Raises
        ------
        ValueError
            If a prompt does not hold the placeholders of exactly one study.
        """
        places = input_ids == self.config.image_token_id
        expected = visual_embeds.shape[1]
        found = places.sum(1)
        if not torch.compiler.is_compiling() and (found != expected).any():
            raise ValueError(
                f"prompts hold {found.tolist()} image placeholders; expected {expected} in each"
            )
        # The placeholder id is outside the language model's vocabulary, which stays unchanged.
        embeds = self.get_input_embeddings()(input_ids.masked_fill(places, 0))
        return embeds.masked_scatter(places[..., None], visual_embeds.to(embeds.dtype))

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        positions_mm: torch.Tensor | None = None,
        planes: torch.Tensor | None = None,
        views: torch.Tensor | None = None,
        stem_features: torch.Tensor | None = None,
        visual_embeds: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> RadFoundOutputWithPast:
        """Run studies and prompts through the model.

        Parameters
        ----------
        input_ids, attention_mask : int64 tensors, shape (B, L)
        pixel_values, frame_mask, positions_mm, planes, views, stem_features : tensors
            As `RadFoundVisionModel.forward` takes them.
        visual_embeds : tensor, shape (B, num_visual_tokens, text hidden_size), optional
            The study's visual tokens, instead of `pixel_values`.
        labels : int64 tensor, shape (B, L), optional
            -100 for positions without loss.
        logits_to_keep : int
            Number of last positions to compute logits for; 0 for all.

        Returns
        -------
        RadFoundOutputWithPast
        """
        if visual_embeds is None and (pixel_values is not None or stem_features is not None):
            visual_embeds = self.get_image_features(
                frame_mask=frame_mask,
                pixel_values=pixel_values,
                positions_mm=positions_mm,
                planes=planes,
                views=views,
                stem_features=stem_features,
            )
        if inputs_embeds is None:
            if visual_embeds is None:
                inputs_embeds = self.get_input_embeddings()(input_ids)
            else:
                inputs_embeds = self.merge_visual_embeds(input_ids, visual_embeds)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            labels=labels,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        return RadFoundOutputWithPast(
            loss=outputs.loss,
            logits=outputs.logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            visual_embeds=visual_embeds,
        )

    def prepare_inputs_for_generation(
        self, *args: Any, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Pass the study in the first step only: afterwards it is in the KV cache."""
        vision = {name: kwargs.pop(name, None) for name in (*self._vision_inputs, "visual_embeds")}
        inputs = super().prepare_inputs_for_generation(
            *args, is_first_iteration=is_first_iteration, **kwargs
        )
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs.update({name: value for name, value in vision.items() if value is not None})
        return inputs

    @property
    def num_parameters_by_part(self) -> dict[str, int]:
        """Number of parameters of vision encoder, connector and language model."""
        parts = {
            "vision": self.vision_model,
            "connector": self.connector,
            "language": self.language_model,
        }
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def _register() -> None:
    AutoConfig.register("radfound_vision", RadFoundVisionConfig, exist_ok=True)
    AutoConfig.register("radfound", RadFoundConfig, exist_ok=True)
    AutoModel.register(RadFoundVisionConfig, RadFoundVisionModel, exist_ok=True)
    AutoModelForImageTextToText.register(
        RadFoundConfig, RadFoundForConditionalGeneration, exist_ok=True
    )


_register()
