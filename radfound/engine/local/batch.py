"""Greedy decoding of several sequences in one batch; sequences join and leave between two steps.

Each sequence attends to its own study and tokens only, so its text does not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from radfound.engine.local.kv_cache import Forward, KVCache, Layers, stacked
from radfound.engine.local.sequence import RunningSequence
from radfound.engine.stream import Token
from radfound.model.processing_radfound import pad_left

if TYPE_CHECKING:
    from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
    from radfound.model.processing_radfound import RadFoundProcessor


class Prefill:
    """Prompts that are prefilled in chunks before their sequences join a batch.

    Parameters
    ----------
    layers : tuple of (keys, values)
        KV caches of the B prompts' prefixes, all of one length.
    embeds : tensor, shape (B, L, width)
    mask : int64 tensor, shape (B, prefix length + L)
    """

    def __init__(self, layers: Layers, embeds: torch.Tensor, mask: torch.Tensor):
        self.layers, self.mask = layers, mask
        self._embeds, self._positions = embeds, (mask.cumsum(1) - 1)[:, -embeds.shape[1] :]

    @torch.no_grad()
    def step(self, forward: Forward, most: int | None = None) -> torch.Tensor | None:
        """Prefill the next chunk; return the logits at the end of the prompts after the last chunk.

        Parameters
        ----------
        forward : Forward
        most : int, optional
            Most tokens in the chunk, over all prompts together; all the rest by default.
        """
        rows, left, _ = self._embeds.shape
        count = left if most is None else min(left, max(1, most // rows))
        chunk, rest = self._embeds.split((count, left - count), 1)
        positions, self._positions = self._positions.split((count, left - count), 1)
        mask = self.mask[:, : self.mask.shape[1] - (left - count)]
        logits, self.layers = forward(self.layers, chunk, mask, positions)
        self._embeds = rest
        return logits if left == count else None


class Batch:
    """Sequences that one model decodes together.

    Parameters
    ----------
    model : RadFoundForConditionalGeneration
    processor : RadFoundProcessor
    forward : Forward
    """

    def __init__(
        self,
        model: RadFoundForConditionalGeneration,
        processor: RadFoundProcessor,
        forward: Forward,
    ):
        self._model, self._processor, self._forward = model, processor, forward
        self.clear()

    def __len__(self) -> int:
        return len(self._sequences)

    def clear(self) -> None:
        """Remove every sequence."""
        self._sequences: list[RunningSequence] = []
        self._layers: Layers = ()
        self._mask = torch.zeros(0, 0, dtype=torch.long)
        self._chosen = torch.zeros(0, dtype=torch.long)

    def join(
        self, prefixes: Sequence[KVCache], questions: Sequence[Sequence[int]]
    ) -> list[tuple[RunningSequence, Token]]:
        """Prefill prompts and return the first token of each answer.

        Parameters
        ----------
        prefixes : sequence of KVCache
            All of one length, as for one model.
        questions : sequence of token ids
            The rest of each prompt, after the prefix.
        """
        first = self.prefill(self.begin_prefill(prefixes, questions))
        assert first is not None
        return first

    @torch.no_grad()
    def begin_prefill(
        self, prefixes: Sequence[KVCache], questions: Sequence[Sequence[int]]
    ) -> Prefill:
        """Prepare a chunked prefill; parameters as for `join`."""
        device = self._model.device
        layers = stacked(prefixes)
        padded = pad_left(questions, self._processor.tokenizer.pad_token_id)
        own = padded["attention_mask"].to(device)
        mask = torch.cat([own.new_ones(len(own), layers[0][0].shape[2]), own], dim=1)
        embeds = self._model.get_input_embeddings()(padded["input_ids"].to(device))
        return Prefill(layers, embeds, mask)

    @torch.no_grad()
    def prefill(
        self, prompts: Prefill, most: int | None = None
    ) -> list[tuple[RunningSequence, Token]] | None:
        """Prefill the next chunk of prompts; after the last one, their sequences join.

        Parameters
        ----------
        prompts : Prefill
        most : int, optional
            Most tokens in the chunk, over all prompts together; all the rest by default.

        Returns
        -------
        list of (RunningSequence, Token), or None
            The first token of each answer; None while chunks are left.
        """
        logits = prompts.step(self._forward, most)
        if logits is None:
            return None
        sequences = [RunningSequence(self._processor) for _ in logits]
        chosen, tokens = _choose_greedily(sequences, logits)
        self._merge(sequences, prompts.layers, prompts.mask, chosen)
        return self._remove_ended(tokens)

    @torch.no_grad()
    def step(self) -> list[tuple[RunningSequence, Token]]:
        """Decode one token for every sequence; finished sequences leave."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self), 1)], dim=1)
        embeds = self._model.get_input_embeddings()(self._chosen[:, None])
        positions = self._mask.sum(1, keepdim=True) - 1
        logits, self._layers = self._forward(self._layers, embeds, self._mask, positions)
        self._chosen, tokens = _choose_greedily(self._sequences, logits)
        return self._remove_ended(tokens)

    def leave(self, sequence: RunningSequence) -> None:
        """Remove a sequence, if it is still running."""
        if sequence in self._sequences:
            self._keep([row for row, other in enumerate(self._sequences) if other is not sequence])

    def _remove_ended(
        self, tokens: list[tuple[RunningSequence, Token]]
    ) -> list[tuple[RunningSequence, Token]]:
        ended = {id(sequence) for sequence, token in tokens if token.last}
        if ended:
            self._keep(
                [row for row, sequence in enumerate(self._sequences) if id(sequence) not in ended]
            )
        return tokens

    def _keep(self, rows: list[int]) -> None:
        """Keep these rows, and drop the columns that are padding in all of them."""
        if not rows:
            self.clear()
            return
        index = torch.tensor(rows, device=self._mask.device)
        mask = self._mask[index]
        start = int(mask.any(0).nonzero()[0])
        self._sequences = [self._sequences[row] for row in rows]
        self._mask, self._chosen = mask[:, start:], self._chosen[index]
        self._layers = tuple(
            (keys[index, :, start:], values[index, :, start:]) for keys, values in self._layers
        )

    def _merge(
        self,
        sequences: list[RunningSequence],
        layers: Layers,
        mask: torch.Tensor,
        chosen: torch.Tensor,
    ) -> None:
        """Append rows, padded on the left to a common width."""
        if self._sequences:
            width = max(mask.shape[1], self._mask.shape[1])
            mask = torch.cat(
                [F.pad(part, (width - part.shape[1], 0)) for part in (self._mask, mask)]
            )
            chosen = torch.cat([self._chosen, chosen])
            layers = tuple(
                (_stack(old_keys, keys, width), _stack(old_values, values, width))
                for (old_keys, old_values), (keys, values) in zip(self._layers, layers, strict=True)
            )
        self._sequences = [*self._sequences, *sequences]
        self._layers, self._mask, self._chosen = layers, mask, chosen


def _choose_greedily(
    sequences: Sequence[RunningSequence], logits: torch.Tensor
) -> tuple[torch.Tensor, list[tuple[RunningSequence, Token]]]:
    log_probabilities = logits.float().log_softmax(-1)
    chosen = log_probabilities.argmax(-1)
    best = log_probabilities.gather(-1, chosen[:, None])[:, 0]
    entropy = -(log_probabilities.exp() * log_probabilities).nansum(-1)
    rows = zip(sequences, chosen.tolist(), best.tolist(), entropy.tolist(), strict=True)
    return chosen, [(sequence, sequence.add(*numbers)) for sequence, *numbers in rows]


def _stack(above: torch.Tensor, below: torch.Tensor, width: int) -> torch.Tensor:
    """Stack (B, heads, T, width) tensors, padded on the left to a common T."""
    return torch.cat([F.pad(part, (0, 0, width - part.shape[2], 0)) for part in (above, below)])
