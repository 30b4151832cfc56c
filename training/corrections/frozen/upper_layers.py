"""The language model's upper layers, which learn; their inputs are computed once for each answer.

An adapter changes neither the prefill of the study (`LocalModel.prefill`) nor the layers below its own. So the
keys and values of the study, and the hidden states that enter the first layer that learns, are computed once;
a training step costs the upper layers over the few tokens of questions and answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from radfound.engine.local.kv_cache import KVCache, cache_arguments, stacked
from radfound.engine.local.model import LocalModel
from training.packing import Branch

_BATCH = 32  # answers in one forward pass


@dataclass(frozen=True, eq=False)
class CachedAnswer:
    """A question with its answer, and the activations that no adapter changes.

    Parameters
    ----------
    branch : Branch
    study : KVCache
        Keys and values of the system prompt and the study, of the layers that learn.
    hidden : tensor, shape (L, width)
        Hidden states that enter the first layer that learns.
    teacher_hidden : tensor, shape (T, width)
        Last hidden states of the base model where each token of the answer is predicted.
    """

    branch: Branch
    study: KVCache
    hidden: torch.Tensor
    teacher_hidden: torch.Tensor


@dataclass(frozen=True, eq=False)
class AnswerLogits:
    """Logits of some answers, token by token.

    Parameters
    ----------
    logits : float tensor, shape (T, vocabulary)
    targets : int64 tensor, shape (T,)
    lengths : list of int
        Number of tokens of each answer; they sum to T.
    """

    logits: torch.Tensor
    targets: torch.Tensor
    lengths: list[int]


class UpperLayers:
    """The layers of a model that an adapter may change.

    Parameters
    ----------
    base : LocalModel
    count : int
        How many of the upper layers learn; more than there are means all.
    """

    def __init__(self, base: LocalModel, count: int):
        self._base = base
        self._layers = base.model.config.text_config.num_hidden_layers
        self.first = max(0, self._layers - count)

    @property
    def numbers(self) -> list[int]:
        """The numbers of these layers, as peft's `layers_to_transform` takes them."""
        return list(range(self.first, self._layers))

    @torch.no_grad()
    def precompute(self, studies: Sequence[tuple[KVCache, Sequence[Branch]]]) -> list[CachedAnswer]:
        """Run questions and answers through the base model, without adapter.

        Each pair is run after the prefill of its study.

        Parameters
        ----------
        studies : sequence of (KVCache, sequence of Branch)
            Keys and values of a study, and questions with their answers.

        Returns
        -------
        list of CachedAnswer, study by study
        """
        upper = [_upper_part(study, self.first) for study, _ in studies]
        pairs = [(n, one) for n, (_, branches) in enumerate(studies) for one in branches]
        # Neighbours of one length need little padding.
        order = sorted(range(len(pairs)), key=lambda n: _length(pairs[n][1]))
        cached: dict[int, CachedAnswer] = {}
        with self._base.without_adapter():
            for start in range(0, len(order), _BATCH):
                part = order[start : start + _BATCH]
                whole = [studies[pairs[n][0]][0] for n in part]
                new = self._precompute_batch([pairs[n] for n in part], whole, upper)
                cached.update(zip(part, new, strict=True))
        return [cached[n] for n in range(len(pairs))]

    def _precompute_batch(
        self,
        branches: Sequence[tuple[int, Branch]],
        whole: Sequence[KVCache],
        upper: Sequence[KVCache],
    ) -> list[CachedAnswer]:
        rows = [torch.tensor(each.question + each.answer[:-1]) for _, each in branches]
        ids = pad_sequence(rows, batch_first=True).to(self._base.model.device)
        output = self._decode(
            self._base.model.get_input_embeddings()(ids),
            _stacked(whole),
            output_hidden_states=True,
        )
        entering, leaving = output.hidden_states[self.first], output.last_hidden_state
        cached = []
        for row, (study, branch) in enumerate(branches):
            length, asked = len(rows[row]), len(branch.question)
            hidden, teacher = entering[row, :length], leaving[row, asked - 1 : length]
            cached.append(CachedAnswer(branch, upper[study], hidden.clone(), teacher.clone()))
        return cached

    def forward(self, cached: Sequence[CachedAnswer]) -> AnswerLogits:
        """Return the logits of some answers, with the adapter that is loaded."""
        leaving: dict[int, torch.Tensor] = {}
        for group in _groups_of_like_length([len(each.hidden) for each in cached]):
            some = [cached[number] for number in group]
            hidden = pad_sequence([each.hidden for each in some], batch_first=True)
            with self._upper_layers_only():
                output = self._decode(
                    hidden, _stacked([each.study for each in some], self.first)
                ).last_hidden_state
            for number, each, row in zip(group, some, output, strict=True):
                leaving[number] = row[len(each.branch.question) - 1 : len(each.hidden)]
        answers = [leaving[number] for number in range(len(cached))]
        targets = torch.tensor([token for each in cached for token in each.branch.answer])
        logits = self.head(torch.cat(answers)).float()
        return AnswerLogits(logits, targets.to(logits.device), [len(answer) for answer in answers])

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of hidden states, (T, width) to (T, vocabulary)."""
        return self._base.model.get_output_embeddings()(hidden)

    def _decode(
        self,
        embeds: torch.Tensor,
        studies: dict[int, tuple[torch.Tensor, torch.Tensor]],
        **options,
    ):
        past, new = next(iter(studies.values()))[0].shape[2], embeds.shape[1]
        # Causal attention after the study; padding comes last, so that no token attends to it.
        mask = torch.full((new, past + new), torch.finfo(embeds.dtype).min, dtype=embeds.dtype)
        mask = mask.triu(past + 1)[None, None].to(embeds.device)
        positions = torch.arange(past, past + new, device=embeds.device)[None]
        return self._decoder(
            inputs_embeds=embeds,
            attention_mask=mask.expand(len(embeds), -1, -1, -1),
            position_ids=positions,
            **cache_arguments(self._base.model.config.text_config, studies),
            **options,
        )

    @property
    def _decoder(self) -> nn.Module:
        return self._base.model.language_model.get_decoder()

    @contextmanager
    def _upper_layers_only(self) -> Iterator[None]:
        decoder = self._decoder
        whole = decoder.layers
        decoder.layers = whole[self.first :]
        try:
            yield
        finally:
            decoder.layers = whole


def _length(branch: Branch) -> int:
    return len(branch.question) + len(branch.answer)


def _groups_of_like_length(lengths: Sequence[int]) -> list[list[int]]:
    """Divide rows, by number, into one or two groups with the least padding."""
    order = sorted(range(len(lengths)), key=lambda number: lengths[number])
    longest = lengths[order[-1]]

    def padded(cut: int) -> int:
        return cut * lengths[order[cut - 1]] + (len(order) - cut) * longest

    cut = min(range(len(order), 0, -1), key=padded)
    return [group for group in (order[:cut], order[cut:]) if group]


def _upper_part(study: KVCache, first: int) -> KVCache:
    return KVCache(tuple((keys.clone(), values.clone()) for keys, values in study.layers[first:]))


def _stacked(
    studies: Sequence[KVCache], first: int = 0
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Return keys and values of some studies as one batch, by layer number."""
    return dict(enumerate(stacked(studies), start=first))
