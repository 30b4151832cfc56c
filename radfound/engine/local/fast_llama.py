"""Fast forward pass of a llama on a CPU, with few, large matrix products.

Decoding one token reads every weight once. In transformers' modules the overhead costs more than the
products: separate products for queries, keys and values, weights that the processor reorders for each
product, dozens of small operations a layer. Here the weights are packed once for oneDNN, and linear layers
with the same input are one product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners import lora
from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaForCausalLM

from radfound.engine.local.kv_cache import Layers

Multiply = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


class UnknownWeights(TypeError):
    """The model or its adapter is of a kind that only transformers and peft support."""


class _Product:
    """Linear layers with the same input, fused into one product, with their LoRA adapters."""

    def __init__(self, *linears: nn.Module):
        bases = [_base(linear) for linear in linears]
        weight = torch.cat([base.weight for base in bases]).detach()
        biases = [base.bias for base in bases]
        self._bias = None if biases[0] is None else torch.cat(biases).detach()
        self._multiply = _multiplier(weight)
        self._lora = _joint_lora(linears)

    def __call__(self, x: torch.Tensor, adapted: bool = True) -> torch.Tensor:
        y = self._multiply(x, self._bias)
        if self._lora is None or not adapted:
            return y
        down, up = self._lora
        # As in peft: the adapter in its own precision, its sum with the base rounded once.
        return (y + F.linear(F.linear(x.to(down.dtype), down), up)).to(y.dtype)


def _base(linear: nn.Module) -> nn.Linear:
    base = linear.base_layer if type(linear) is lora.Linear else linear
    if type(base) is not nn.Linear:
        raise UnknownWeights(type(base).__name__)
    return base


def _multiplier(weight: torch.Tensor) -> Multiply:
    """Return the product with a weight, packed for this processor if possible."""
    if weight.dtype == torch.bfloat16 and _can_pack_bfloat16():
        # torch.compile calls this operator too, but needs a compiler on the user's machine.
        multiply = torch.ops.mkldnn._linear_pointwise
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 1)
        return lambda x, bias: multiply(x, packed, bias, "none", [], "")
    return lambda x, bias: F.linear(x, weight, bias)


def _can_pack_bfloat16() -> bool:
    """Whether torch and the processor support it; the operators are not part of torch's public API."""
    needed = ("_is_mkldnn_bf16_supported", "_linear_pointwise", "_reorder_linear_weight")
    onednn = torch.ops.mkldnn
    return all(hasattr(onednn, name) for name in needed) and onednn._is_mkldnn_bf16_supported()


def _joint_lora(linears: Sequence[nn.Module]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the joint LoRA matrices: down, shape (ranks, in), and up, (out, ranks), scaled."""
    downs, ups = [], []
    for linear in linears:
        if type(linear) is not lora.Linear or linear.disable_adapters:
            ups.append(torch.zeros(_base(linear).out_features, 0))
            continue
        name = linear.active_adapters[0]
        is_plain = not (
            linear.merged or linear.lora_variant or linear.lora_B[name].bias is not None
        )
        if len(linear.active_adapters) > 1 or not is_plain:
            raise UnknownWeights("several adapters, or a variant of LoRA")
        downs.append(linear.lora_A[name].weight.detach())
        ups.append(linear.lora_B[name].weight.detach() * linear.scaling[name])
    if not downs:
        return None
    return torch.cat(downs), torch.block_diag(*ups).to(downs[0].dtype)


class _Layer:
    """One decoder layer, equal to `LlamaDecoderLayer`."""

    def __init__(self, layer: LlamaDecoderLayer):
        attention, mlp = layer.self_attn, layer.mlp
        self._before_attention, self._before_mlp = (
            layer.input_layernorm,
            layer.post_attention_layernorm,
        )
        self._qkv = _Product(attention.q_proj, attention.k_proj, attention.v_proj)
        self._out = _Product(attention.o_proj)
        self._gate_up = _Product(mlp.gate_proj, mlp.up_proj)
        self._down = _Product(mlp.down_proj)
        self._activate = mlp.act_fn
        self._width, self._group = attention.head_dim, attention.num_key_value_groups
        self._heads = attention.config.num_key_value_heads

    def __call__(
        self,
        x: torch.Tensor,
        past: tuple[torch.Tensor, torch.Tensor] | None,
        rotation: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor | None,
        adapted: bool,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        rows, count, _ = x.shape
        joint = self._qkv(_norm(self._before_attention, x), adapted).view(
            rows, count, -1, self._width
        )
        rotated = self._heads * (self._group + 1)
        query_key, values = joint.split((rotated, self._heads), dim=2)
        query_key = _rotate(query_key, *rotation)
        queries, keys = query_key.split((rotated - self._heads, self._heads), dim=2)
        keys, values = keys.transpose(1, 2), values.transpose(1, 2)
        if past is None:  # a view would keep the queries in memory
            keys, values = keys.contiguous(), values.contiguous()
        else:
            keys, values = torch.cat((past[0], keys), 2), torch.cat((past[1], values), 2)
        # Heads that share keys are stacked as additional queries.
        queries = (
            queries.unflatten(2, (self._heads, self._group)).permute(0, 2, 3, 1, 4).flatten(2, 3)
        )
        mixed = F.scaled_dot_product_attention(queries, keys, values, mask)
        mixed = mixed.unflatten(2, (self._group, count)).permute(0, 3, 1, 2, 4).flatten(2)
        x = x + self._out(mixed, adapted)
        gate, up = self._gate_up(_norm(self._before_mlp, x), adapted).chunk(2, dim=-1)
        return x + self._down(self._activate(gate) * up, adapted), (keys, values)


def _norm(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return norm.weight * F.rms_norm(x.float(), x.shape[-1:], eps=norm.variance_epsilon).to(x.dtype)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate (B, L, heads, width) by position; `sin` is negative in its first half."""
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


class Llama:
    """The forward pass of `radfound.engine.local.kv_cache.forward`, with the weights of a llama.

    Parameters
    ----------
    model : LlamaForCausalLM, or a PeftModel with a LoRA adapter around one
        The weights are copied: create a new `Llama` when they change.

    Raises
    ------
    UnknownWeights
        If the model is of another kind.
    """

    def __init__(self, model: nn.Module):
        if isinstance(model, PeftModel):
            model = model.get_base_model()
        if type(model) is not LlamaForCausalLM:
            raise UnknownWeights(type(model).__name__)
        self._layers = [_Layer(layer) for layer in model.model.layers]
        self._norm, self._head = model.model.norm, _Product(model.lm_head)
        self._positions = model.model.rotary_emb
        self._group = model.config.num_attention_heads // model.config.num_key_value_heads

    @torch.no_grad()
    def __call__(
        self,
        layers: Layers,
        embeds: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        adapted: bool = True,
    ) -> tuple[torch.Tensor, Layers]:
        """Run the forward pass, with or without the adapter; arguments and result as for `forward`."""
        cos, sin = (part[:, :, None] for part in self._positions(embeds, positions))
        half = sin.shape[-1] // 2
        rotation = cos, torch.cat((-sin[..., :half], sin[..., half:]), -1)
        bias = _attention_bias(mask, embeds, self._group)
        x, extended = embeds, []
        for number, layer in enumerate(self._layers):
            past = layers[number] if layers else None
            x, keys_values = layer(x, past, rotation, bias, adapted)
            extended.append(keys_values)
        return self._head(_norm(self._norm, x[:, -1])), tuple(extended)


def _attention_bias(mask: torch.Tensor, embeds: torch.Tensor, group: int) -> torch.Tensor | None:
    """Return the attention bias, shape (B, 1, group * L, T), or None if nothing is masked."""
    (rows, width), count = mask.shape, embeds.shape[1]
    if count == 1 and bool(mask.all()):
        return None
    visible = torch.ones(count, width, dtype=torch.bool).tril(width - count) & mask.bool()[:, None]
    bias = torch.zeros(rows, count, width, dtype=embeds.dtype)
    # Not minus infinity: a row of padding attends to nothing and must not become NaN.
    bias.masked_fill_(~visible, torch.finfo(embeds.dtype).min)
    return bias.repeat(1, group, 1)[:, None]
