"""KV caches of the language model, and the forward pass that extends them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

if TYPE_CHECKING:
    from radfound.model.modeling_radfound import RadFoundForConditionalGeneration

Layers = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""Keys and values of every layer, each of shape (B, heads, T, head width)."""
Forward = Callable[[Layers, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, Layers]]
"""`forward` with its model bound."""


@dataclass(frozen=True, eq=False)
class KVCache:
    """KV cache of a prompt's prefix: system prompt and study.

    Parameters
    ----------
    layers : tuple of (keys, values)
        Of every layer, each of shape (1, heads, T, head width).
    """

    layers: Layers

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)


class PrefixCache:
    """Least-recently-used cache of prefixes, by study and region.

    Parameters
    ----------
    max_bytes : int
    """

    def __init__(self, max_bytes: int):
        self.hits, self.misses = 0, 0
        self._max_bytes, self._bytes = max_bytes, 0
        self._kept: OrderedDict[Hashable, KVCache] = OrderedDict()

    def get(self, key: Hashable) -> KVCache | None:
        """Return a KV cache, or None."""
        found = self._kept.get(key)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
            self._kept.move_to_end(key)
        return found

    def put(self, key: Hashable, prefix: KVCache) -> None:
        """Keep a KV cache, and evict the least recently used ones beyond the limit."""
        self._kept[key] = prefix
        self._bytes += prefix.nbytes
        while self._bytes > self._max_bytes:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


def forward(
    model: RadFoundForConditionalGeneration,
    layers: Layers,
    embeds: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
) -> tuple[torch.Tensor, Layers]:
    """Run the language model over new tokens after a KV cache.

    Parameters
    ----------
    layers : tuple of (keys, values)
        Of the previous tokens; empty at the start.
    embeds : tensor, shape (B, L, width)
    mask : int64 tensor, shape (B, previous tokens + L)
    positions : int64 tensor, shape (B, L)

    Returns
    -------
    logits : tensor, shape (B, vocabulary)
        At the last position.
    layers : tuple of (keys, values)
        Extended by the new tokens.
    """
    cache = DynamicCache(config=model.config.text_config)
    for number, (keys, values) in enumerate(layers):
        cache.update(keys, values, number)
    output = model.language_model(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1], tuple((layer.keys, layer.values) for layer in cache.layers)
