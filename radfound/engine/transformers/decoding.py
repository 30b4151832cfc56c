"""Greedy decoding of several sequences: those with the same adapter in one batch where their caches allow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache

from radfound.engine.hidden import HiddenText
from radfound.engine.stream import Stream, Token
from radfound.engine.transformers.prefixes import Prefix, branch, is_batchable

MOST_ROWS = 8


@dataclass(eq=False)
class AnswerRow:
    """One answer being decoded.

    Parameters
    ----------
    stream : Stream
    adapter : str or None
    limit : int
        Most visible tokens.
    hidden : HiddenText
    hidden_limit : int
        Most hidden tokens.
    text : PieceDecoder
    """

    stream: Stream
    adapter: str | None
    limit: int
    hidden: HiddenText
    hidden_limit: int
    text: PieceDecoder
    ids: list[int] = field(default_factory=list)
    visible: int = 0
    concealed: int = 0

    def take(self, token: int, log_probability: float, entropy: float, is_stop: bool) -> bool:
        """Put a token into the stream; return whether the answer has ended."""
        self.ids.append(token)
        piece = "" if is_stop else self.text.add(token)
        was_hiding = self.hidden.is_hiding
        for each in self.hidden.feed(Token(piece, log_probability, entropy, is_stop)):
            self.stream.put(each)
        if was_hiding or self.hidden.is_hiding:
            self.concealed += 1
        else:
            self.visible += 1
        if not is_stop and self.visible < self.limit and self.concealed < self.hidden_limit:
            return False
        for each in self.hidden.flush():
            self.stream.put(each)
        self.stream.end()
        return True


class PieceDecoder:
    """Turns token ids into the text that each adds, whole characters only.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizer
    silent : set of int
        Special tokens that are not shown.
    """

    def __init__(self, tokenizer: Any, silent: frozenset[int]):
        self._tokenizer = tokenizer
        self._silent = silent
        self._ids: list[int] = []
        self._start = 0
        self._done = 0

    def add(self, token: int) -> str:
        """Return the text that a token adds; empty while a character is incomplete."""
        if token in self._silent:
            return ""
        self._ids.append(token)
        # Decoded with the token before, because a first word may lose its space.
        before = self._decode(self._ids[self._start : self._done])
        after = self._decode(self._ids[self._start :])
        if after.endswith("\ufffd"):
            return ""
        self._start, self._done = self._done, len(self._ids)
        return after[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text


class Decoder:
    """Forward passes of a model after its prefixes.

    Parameters
    ----------
    model : PreTrainedModel
    stop_tokens : set of int
    """

    def __init__(self, model: Any, stop_tokens: frozenset[int]):
        self.model = model
        self.stop_tokens = stop_tokens
        penalty = getattr(model.generation_config, "repetition_penalty", None)
        self._penalty = float(penalty or 1.0)

    @torch.inference_mode()
    def extend(
        self, cache: Cache, start: int, shift: int, ids: Sequence[int], keep: int = 1
    ) -> torch.Tensor:
        """Run token ids after a cache of `start` tokens; return the last `keep` logits, float32, (keep, V)."""
        tokens = torch.tensor([list(ids)], device=self.model.device)
        positions = torch.arange(start, start + len(ids), device=self.model.device)[None] + shift
        output = self.model(
            input_ids=tokens, position_ids=self._positions(positions), past_key_values=cache,
            use_cache=True, logits_to_keep=keep,
        )  # fmt: skip
        logits: torch.Tensor = output.logits[0].float()
        return logits

    @torch.inference_mode()
    def step(
        self, cache: Cache, ids: Sequence[int], mask: torch.Tensor | None, positions: Sequence[int]
    ) -> torch.Tensor:
        """Run one token of each row; return the logits, float32, shape (rows, V)."""
        device = self.model.device
        at = torch.tensor(positions, device=device)[:, None]
        output = self.model(
            input_ids=torch.tensor(ids, device=device)[:, None], attention_mask=mask,
            position_ids=self._positions(at), past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _positions(self, positions: torch.Tensor) -> torch.Tensor:
        """Return positions as the model takes them: Qwen-VL has three, for time, height and width."""
        return (
            positions.expand(3, *positions.shape)
            if hasattr(self.model.model, "rope_deltas")
            else positions
        )

    def choose(
        self, logits: torch.Tensor, before: Sequence[Sequence[int]]
    ) -> list[tuple[int, float, float]]:
        """Return for each row the likeliest token, its log-probability and the entropy in nats.

        Parameters
        ----------
        logits : tensor, shape (rows, V)
        before : for each row, the token ids of prompt and answer
            Only the choice depends on them, by the model's own repetition penalty; the probabilities do not.
        """
        logs = logits.log_softmax(-1)
        entropies = -(logs.exp() * logs).nan_to_num().sum(-1)
        preferred = logits
        if self._penalty != 1.0:
            preferred = logits.clone()
            for row, ids in zip(preferred, before, strict=True):
                seen = torch.tensor(sorted(set(ids)), device=row.device)
                known = row[seen]
                row[seen] = torch.where(known < 0, known * self._penalty, known / self._penalty)
        tokens = preferred.argmax(-1)
        chosen = logs.gather(-1, tokens[:, None])[:, 0]
        return list(zip(tokens.tolist(), chosen.tolist(), entropies.tolist(), strict=True))


class Batch:
    """Sequences that are decoded together, with one adapter.

    Parameters
    ----------
    decoder : Decoder
    adapter : str or None
    """

    def __init__(self, decoder: Decoder, adapter: str | None):
        self._decoder = decoder
        self.adapter = adapter
        self.rows: list[AnswerRow] = []
        self._prompts: list[tuple[int, ...]] = []
        self._positions: list[int] = []
        self._cache: Cache | None = None
        self._mask: torch.Tensor | None = None

    def takes(self, prefix: Prefix) -> bool:
        """Whether another sequence can join."""
        return (
            len(self.rows) < MOST_ROWS
            and self._cache is not None
            and is_batchable(self._cache)
            and is_batchable(prefix.cache)
        )

    def join(self, sequence: AnswerRow, prefix: Prefix, rest: Sequence[int]) -> None:
        """Prefill the rest of a prompt, choose the first token, and decode the others from now on."""
        cache = prefix.branch()
        length = len(prefix.ids)
        logits = self._decoder.extend(cache, length, prefix.shift, rest)
        prompt = (*prefix.ids, *rest)
        mask = torch.ones(1, len(prompt), dtype=torch.long, device=logits.device)
        if self._cache is not None:
            cache, mask = _joined(self._cache, self._mask, cache, mask)
        self._cache, self._mask = cache, mask
        self.rows.append(sequence)
        self._prompts.append(prompt)
        self._positions.append(len(prompt) + prefix.shift)
        self._take(logits, slice(len(self.rows) - 1, None))

    def step(self) -> None:
        """Decode one token of each row; drop the rows that have ended or were cancelled."""
        self._keep([not row.stream.is_cancelled for row in self.rows])
        if not self.rows:
            return
        assert self._mask is not None and self._cache is not None
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=1)
        padded = self._mask if len(self.rows) > 1 or not bool(self._mask.all()) else None
        logits = self._decoder.step(
            self._cache, [row.ids[-1] for row in self.rows], padded, self._positions
        )
        self._positions = [each + 1 for each in self._positions]
        self._take(logits, slice(None))

    def remove(self, row: AnswerRow) -> None:
        """Drop a row whose prefill failed."""
        self._keep([each is not row for each in self.rows])

    def fail(self, error: BaseException) -> None:
        """End all rows with an error."""
        for row in self.rows:
            row.stream.fail(error)
        self.rows = []

    def _take(self, logits: torch.Tensor, part: slice) -> None:
        rows, prompts = self.rows[part], self._prompts[part]
        before = [(*p, *row.ids) for p, row in zip(prompts, rows, strict=True)]
        ended = {
            row
            for row, (token, log_probability, entropy) in zip(
                rows, self._decoder.choose(logits, before), strict=True
            )
            if row.take(token, log_probability, entropy, token in self._decoder.stop_tokens)
        }
        self._keep([row not in ended for row in self.rows])

    def _keep(self, kept: list[bool]) -> None:
        if all(kept):
            return
        left = [n for n, keep in enumerate(kept) if keep]
        self.rows = [self.rows[n] for n in left]
        self._prompts = [self._prompts[n] for n in left]
        self._positions = [self._positions[n] for n in left]
        if not left:
            self._cache = self._mask = None
            return
        assert self._mask is not None and self._cache is not None
        indices = torch.tensor(left, device=self._mask.device)
        self._mask = self._mask[indices]
        self._cache.batch_select_indices(indices)


def _joined(
    cache: Cache, mask: torch.Tensor | None, other: Cache, other_mask: torch.Tensor
) -> tuple[Cache, torch.Tensor]:
    """Return a cache with one row more, and its mask; the shorter one is padded at its left."""
    assert mask is not None
    length = max(mask.shape[1], other_mask.shape[1])
    cache = branch(cache)
    for layer, new in zip(cache.layers, other.layers, strict=True):
        layer.keys = torch.cat([_padded(layer.keys, length), _padded(new.keys, length)])
        layer.values = torch.cat([_padded(layer.values, length), _padded(new.values, length)])
    masks = [_padded(each[:, None, :, None], length)[:, 0, :, 0] for each in (mask, other_mask)]
    return cache, torch.cat(masks)


def _padded(tensor: torch.Tensor, length: int) -> torch.Tensor:
    """Pad shape (rows, heads, tokens, size) with zeros at the left to a number of tokens."""
    return torch.nn.functional.pad(tensor, (0, 0, length - tensor.shape[2], 0))
