"""The KV cache of a prompt up to its last picture, and a bounded store of them."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from cachetools import LRUCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from radfound.engine.transformers.prompts import PicturesPart
from radfound.study.region import Box, Plane

Key = tuple[str, Box | Plane | None, str | None]
"""Digest of the study, region, adapter."""


@dataclass(frozen=True, eq=False)
class Prefix:
    """The prefilled part that all questions about a study share.

    Parameters
    ----------
    cache : Cache
        Never continued itself, but by its `branch`.
    ids : tuple of int
    shift : int
        Position of the next token minus the number of tokens: pictures of Qwen-VL take fewer positions.
    embedding : float32 array, shape (D,)
        Mean hidden state of the pictures, of length 1.
    """

    cache: Cache
    ids: tuple[int, ...]
    shift: int
    embedding: np.ndarray

    @property
    def nbytes(self) -> int:
        """Memory of the cache in bytes."""
        return sum(
            tensor.nbytes
            for layer in self.cache.layers
            for tensor in vars(layer).values()
            if torch.is_tensor(tensor)
        )

    def branch(self) -> Cache:
        """Return a cache that can be continued without changing this one."""
        return branch(self.cache)


def branch(cache: Cache) -> Cache:
    """Return a cache that can be continued without changing the given one."""
    if all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers):
        # Their update makes new tensors, so that the old ones can be shared.
        new = copy.copy(cache)
        new.layers = [copy.copy(layer) for layer in cache.layers]
        return new
    return copy.deepcopy(cache)


def is_batchable(cache: Cache) -> bool:
    """Whether caches of different lengths can be padded and decoded together."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


class Prefixes:
    """Prefixes by `Key`, the least recently used dropped first. Thread-safe.

    Parameters
    ----------
    most_bytes : int
    """

    def __init__(self, most_bytes: int):
        self._kept: LRUCache[Key, Prefix] = LRUCache(most_bytes, getsizeof=lambda each: each.nbytes)
        self._lock = threading.Lock()
        self.hits, self.misses = 0, 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> Prefix | None:
        """Return a prefix, or None."""
        with self._lock:
            found = self._kept.get(key)
            self.hits += found is not None
            return found

    def keep(self, key: Key, prefix: Prefix) -> None:
        """Store a prefix that had to be prefilled, unless it alone exceeds the limit."""
        with self._lock:
            self.misses += 1
            if prefix.nbytes <= self._kept.maxsize:
                self._kept[key] = prefix

    def drop_adapter(self, adapter: str) -> None:
        """Drop all prefixes of an adapter."""
        with self._lock:
            for key in [each for each in self._kept if each[2] == adapter]:
                del self._kept[key]

    def clear(self) -> None:
        """Drop all prefixes."""
        with self._lock:
            self._kept.clear()


@torch.inference_mode()
def prefill(model: Any, part: PicturesPart, image_token: int) -> Prefix:
    """Run the vision encoder and the language model over the part of a prompt with the pictures."""
    core = model.model
    inputs = {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in part.inputs.items()
    }
    if hasattr(core, "rope_deltas"):
        core.rope_deltas = None
    output = core(**inputs, use_cache=True)
    deltas = getattr(core, "rope_deltas", None)
    is_image = inputs["input_ids"][0] == image_token
    mean = output.last_hidden_state[0][is_image].float().mean(0)
    embedding = (mean / mean.norm().clamp_min(1e-12)).cpu().numpy()
    shift = 0 if deltas is None else int(deltas.flatten()[0])
    return Prefix(output.past_key_values, part.ids, shift, embedding)
