"""Greedy decoding of several answers side by side; others join, and leave, between two steps.

Each answer sees its own study and its own words only, and has the text that it would have alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from transformers import DynamicCache

from radfound.model.processing_radfound import pad_left

if TYPE_CHECKING:
    from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
    from radfound.model.processing_radfound import RadFoundProcessor

Layers = tuple[tuple[torch.Tensor, torch.Tensor], ...]
ReadOn = Callable[[Layers, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, Layers]]
"""What `read` is with its model in place."""


@dataclass(frozen=True)
class Token:
    """One generated token.

    Parameters
    ----------
    text : str
        What it adds to the answer; may be empty while a character is incomplete.
    log_probability : float
    entropy : float
        Of the distribution it was chosen from, in nats.
    last : bool
        Whether it is the stop token.
    """

    text: str
    log_probability: float
    entropy: float
    last: bool = False


@dataclass(frozen=True, eq=False)
class Prefix:
    """The language model's keys and values of the prompt's beginning: the system's words and the study.

    Parameters
    ----------
    layers : tuple of (keys, values)
        Of every layer, each of shape (1, heads, T, head width).
    """

    layers: Layers

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)


class PrefixCache:
    """The prefixes that were used last.

    Parameters
    ----------
    max_bytes : int
    """

    def __init__(self, max_bytes: int):
        self.hits, self.misses = 0, 0
        self._max_bytes, self._bytes = max_bytes, 0
        self._kept: OrderedDict[Hashable, Prefix] = OrderedDict()

    def get(self, key: Hashable) -> Prefix | None:
        """Return a prefix, or None if it is not there (any more)."""
        found = self._kept.get(key)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
            self._kept.move_to_end(key)
        return found

    def put(self, key: Hashable, prefix: Prefix) -> None:
        """Keep a prefix, and let go of the least recently used ones beyond the limit."""
        self._kept[key] = prefix
        self._bytes += prefix.nbytes
        while self._bytes > self._max_bytes:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


class Draft:
    """An answer that is being written."""

    def __init__(self, processor: RadFoundProcessor):
        self._tokenizer = processor.tokenizer
        self._ids: list[int] = []
        self._shown = ""

    def add(self, chosen: int, log_probability: float, entropy: float) -> Token:
        """Return the next token."""
        last = chosen == self._tokenizer.eos_token_id
        if not last:
            self._ids.append(chosen)
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        # Half a character decodes to U+FFFD: wait for its other half.
        piece = "" if text.endswith("\ufffd") else text[len(self._shown) :]
        self._shown += piece
        return Token(piece, log_probability, entropy, last)


class Prefill:
    """Prompts that are being read, piece by piece, before their answers join a batch.

    Parameters
    ----------
    layers : tuple of (keys, values)
        Of what was read before, the same length for each of B prompts.
    embeds : tensor, shape (B, L, width)
    mask : int64 tensor, shape (B, all read before and L)
    """

    def __init__(self, layers: Layers, embeds: torch.Tensor, mask: torch.Tensor):
        self.layers, self.mask = layers, mask
        self._embeds, self._positions = embeds, (mask.cumsum(1) - 1)[:, -embeds.shape[1] :]

    @torch.no_grad()
    def read(self, read_on: ReadOn, most: int | None = None) -> torch.Tensor | None:
        """Read the next piece; return the logits at the end of the prompts once that is reached.

        Parameters
        ----------
        read_on : ReadOn
        most : int, optional
            Tokens to read, of all prompts together; all that are left by default.
        """
        rows, left, _ = self._embeds.shape
        count = left if most is None else min(left, max(1, most // rows))
        pieces, rest = self._embeds.split((count, left - count), 1)
        positions, self._positions = self._positions.split((count, left - count), 1)
        seen = self.mask[:, : self.mask.shape[1] - (left - count)]
        logits, self.layers = read_on(self.layers, pieces, seen, positions)
        self._embeds = rest
        return logits if left == count else None


class Batch:
    """Answers that one model writes side by side.

    Parameters
    ----------
    model : RadFoundForConditionalGeneration
    processor : RadFoundProcessor
    read_on : ReadOn
    """

    def __init__(
        self,
        model: RadFoundForConditionalGeneration,
        processor: RadFoundProcessor,
        read_on: ReadOn,
    ):
        self._model, self._processor, self._read_on = model, processor, read_on
        self.clear()

    def __len__(self) -> int:
        return len(self._drafts)

    def clear(self) -> None:
        """Forget every answer."""
        self._drafts: list[Draft] = []
        self._layers: Layers = ()
        self._mask = torch.zeros(0, 0, dtype=torch.long)
        self._chosen = torch.zeros(0, dtype=torch.long)

    def join(
        self, prefixes: Sequence[Prefix], questions: Sequence[Sequence[int]]
    ) -> list[tuple[Draft, Token]]:
        """Begin answers, and return the first token of each.

        Parameters
        ----------
        prefixes : sequence of Prefix
            All of one length, as those of one model are.
        questions : sequence of token ids
            What follows each prefix in the prompt.
        """
        first = self.read(self.prefill(prefixes, questions))
        assert first is not None
        return first

    @torch.no_grad()
    def prefill(self, prefixes: Sequence[Prefix], questions: Sequence[Sequence[int]]) -> Prefill:
        """Prepare to begin answers piece by piece; takes what `join` does."""
        device = self._model.device
        layers = tuple(
            (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer]))
            for layer in zip(*(prefix.layers for prefix in prefixes), strict=True)
        )
        padded = pad_left(questions, self._processor.tokenizer.pad_token_id)
        own = padded["attention_mask"].to(device)
        mask = torch.cat([own.new_ones(len(own), layers[0][0].shape[2]), own], dim=1)
        embeds = self._model.get_input_embeddings()(padded["input_ids"].to(device))
        return Prefill(layers, embeds, mask)

    @torch.no_grad()
    def read(self, prompts: Prefill, most: int | None = None) -> list[tuple[Draft, Token]] | None:
        """Read the next piece of prompts; after the last, their answers join.

        Parameters
        ----------
        prompts : Prefill
        most : int, optional
            Tokens to read, of all prompts together; all that are left by default.

        Returns
        -------
        list of (Draft, Token), or None
            The first token of each answer; None while something is left to read.
        """
        logits = prompts.read(self._read_on, most)
        if logits is None:
            return None
        drafts = [Draft(self._processor) for _ in logits]
        chosen, tokens = _choose(drafts, logits)
        self._merge(drafts, prompts.layers, prompts.mask, chosen)
        return self._close(tokens)

    @torch.no_grad()
    def step(self) -> list[tuple[Draft, Token]]:
        """Write one token of every answer; those that end with it leave."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self), 1)], dim=1)
        embeds = self._model.get_input_embeddings()(self._chosen[:, None])
        positions = self._mask.sum(1, keepdim=True) - 1
        logits, self._layers = self._read_on(self._layers, embeds, self._mask, positions)
        self._chosen, tokens = _choose(self._drafts, logits)
        return self._close(tokens)

    def leave(self, draft: Draft) -> None:
        """Stop writing an answer; nothing happens if it has ended."""
        if draft in self._drafts:
            self._keep([row for row, each in enumerate(self._drafts) if each is not draft])

    def _close(self, tokens: list[tuple[Draft, Token]]) -> list[tuple[Draft, Token]]:
        ended = {id(draft) for draft, token in tokens if token.last}
        if ended:
            self._keep([row for row, draft in enumerate(self._drafts) if id(draft) not in ended])
        return tokens

    def _keep(self, rows: list[int]) -> None:
        """Drop the other rows, and the columns in which nobody is left."""
        if not rows:
            self.clear()
            return
        index = torch.tensor(rows, device=self._mask.device)
        mask = self._mask[index]
        start = int(mask.any(0).nonzero()[0])
        self._drafts = [self._drafts[row] for row in rows]
        self._mask, self._chosen = mask[:, start:], self._chosen[index]
        self._layers = tuple(
            (keys[index, :, start:], values[index, :, start:]) for keys, values in self._layers
        )

    def _merge(
        self, drafts: list[Draft], layers: Layers, mask: torch.Tensor, chosen: torch.Tensor
    ) -> None:
        """Put new rows under those that are there, both padded on the left to one width."""
        if self._drafts:
            width = max(mask.shape[1], self._mask.shape[1])
            mask = torch.cat(
                [F.pad(each, (width - each.shape[1], 0)) for each in (self._mask, mask)]
            )
            chosen = torch.cat([self._chosen, chosen])
            layers = tuple(
                (_stack(old_keys, keys, width), _stack(old_values, values, width))
                for (old_keys, old_values), (keys, values) in zip(self._layers, layers, strict=True)
            )
        self._drafts = [*self._drafts, *drafts]
        self._layers, self._mask, self._chosen = layers, mask, chosen


def read(
    model: RadFoundForConditionalGeneration,
    layers: Layers,
    embeds: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
) -> tuple[torch.Tensor, Layers]:
    """Read on after what was read before.

    Parameters
    ----------
    layers : tuple of (keys, values)
        Of what was read before; empty at the start.
    embeds : tensor, shape (B, L, width)
    mask : int64 tensor, shape (B, all read so far and L)
    positions : int64 tensor, shape (B, L)

    Returns
    -------
    logits : tensor, shape (B, vocabulary)
        At the last position.
    layers : tuple of (keys, values)
        With what was read now.
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


def _choose(
    drafts: Sequence[Draft], logits: torch.Tensor
) -> tuple[torch.Tensor, list[tuple[Draft, Token]]]:
    log_probabilities = logits.float().log_softmax(-1)
    chosen = log_probabilities.argmax(-1)
    best = log_probabilities.gather(-1, chosen[:, None])[:, 0]
    entropy = -(log_probabilities.exp() * log_probabilities).nansum(-1)
    rows = zip(drafts, chosen.tolist(), best.tolist(), entropy.tolist(), strict=True)
    return chosen, [(draft, draft.add(*numbers)) for draft, *numbers in rows]


def _stack(above: torch.Tensor, below: torch.Tensor, width: int) -> torch.Tensor:
    """Stack (B, heads, T, width) tensors, padded on the left to one T."""
    return torch.cat([F.pad(each, (0, 0, width - each.shape[2], 0)) for each in (above, below)])
