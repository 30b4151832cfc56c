"""KV caches of the language model, and the forward pass that extends them.

The only module that knows how transformers takes and returns a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from cachetools import LRUCache
from transformers import DynamicCache, PretrainedConfig

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


def stacked(caches: Sequence[KVCache]) -> Layers:
    """Return the KV caches of several prefixes of one length as those of one batch."""
    return tuple(
        (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer]))
        for layer in zip(*(cache.layers for cache in caches), strict=True)
    )


class PrefixCache:
    """Least-recently-used cache of prefixes, by study and region.

    Parameters
    ----------
    max_bytes : int
    """

    def __init__(self, max_bytes: int):
        self.hits, self.misses = 0, 0
        self._kept: LRUCache[Hashable, KVCache] = LRUCache(
            max_bytes, getsizeof=lambda prefix: prefix.nbytes
        )

    def get(self, key: Hashable) -> KVCache | None:
        """Return a KV cache, or None."""
        found = self._kept.get(key)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
        return found

    def put(self, key: Hashable, prefix: KVCache) -> None:
        """Keep a KV cache, and evict the least recently used ones beyond the limit."""
        if prefix.nbytes <= self._kept.maxsize:
            self._kept[key] = prefix


def cache_arguments(
    config: PretrainedConfig, layers: Mapping[int, tuple[torch.Tensor, torch.Tensor]]
) -> dict[str, Any]:
    """Return the arguments that pass a KV cache to a model of transformers.

    Parameters
    ----------
    config : PretrainedConfig
        Of the language model.
    layers : mapping of int to (keys, values)
        By number of the layer; empty at the start of a prompt.
    """
    cache = DynamicCache(config=config)
    for number, (keys, values) in layers.items():
        cache.update(keys, values, number)
    return {"past_key_values": cache, "use_cache": True}


def forward_many(
    model: RadFoundForConditionalGeneration,
    layers: Layers,
    embeds: torch.Tensor,
    keep: int,
    **options: torch.Tensor,
) -> tuple[torch.Tensor, Layers]:
    """Run the language model over new tokens after a KV cache; differentiable.

    Parameters
    ----------
    layers : tuple of (keys, values)
        Of the previous tokens; empty at the start.
    embeds : tensor, shape (B, L, width)
    keep : int
        Number of last positions whose logits are returned.
    **options : tensor
        Further arguments of the language model, such as `attention_mask`.

    Returns
    -------
    logits : tensor, shape (B, keep, vocabulary)
    layers : tuple of (keys, values)
        Extended by the new tokens.
    """
    arguments = cache_arguments(model.config.text_config, dict(enumerate(layers)))
    output = model.language_model(inputs_embeds=embeds, logits_to_keep=keep, **arguments, **options)
    cache = output.past_key_values
    return output.logits, tuple((layer.keys, layer.values) for layer in cache.layers)


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
    logits, extended = forward_many(
        model, layers, embeds, 1, attention_mask=mask, position_ids=positions
    )
    return logits[:, -1], extended
