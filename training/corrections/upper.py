"""The language model's upper layers, which learn; what enters them is computed once for each answer.

An adapter leaves alone what the model reads of the study (`LocalModel.read`) and the layers below its own.
So the keys and values of the study, and the lower layers' account of question and answer, are computed a
single time; a step of learning costs the upper layers and the few tokens of questions and answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from radfound.engine.local.backend import LocalModel
from radfound.engine.local.sequence import Prefix
from training.packing import Branch

_BATCH = 32  # answers read at once


@dataclass(frozen=True, eq=False)
class Reading:
    """A question with its answer, as far as the adapter changes nothing.

    Parameters
    ----------
    branch : Branch
    study : Prefix
        Keys and values of the system's words and the study, of the layers that learn.
    hidden : tensor, shape (L, width)
        What enters the first layer that learns.
    said : tensor, shape (T, width)
        What the base model's head is given where each token of the answer is chosen.
    """

    branch: Branch
    study: Prefix
    hidden: torch.Tensor
    said: torch.Tensor


@dataclass(frozen=True, eq=False)
class Run:
    """What the upper layers say of some readings, answer token by answer token.

    Parameters
    ----------
    logits : float tensor, shape (T, vocabulary)
    targets : int64 tensor, shape (T,)
    lengths : list of int
        Tokens of each reading's answer; they sum to T.
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
    def read(self, studies: Sequence[tuple[Prefix, Sequence[Branch]]]) -> list[Reading]:
        """Read what is asked and answered about some studies, without adapter.

        Parameters
        ----------
        studies : sequence of (Prefix, sequence of Branch)
            What the model has read of a study, and questions with their answers.

        Returns
        -------
        list of Reading, study by study
        """
        upper = [_upper_part(study, self.first) for study, _ in studies]
        each = [(n, one) for n, (_, branches) in enumerate(studies) for one in branches]
        # Neighbours of one length need little padding.
        order = sorted(range(len(each)), key=lambda n: _length(each[n][1]))
        made: dict[int, Reading] = {}
        with self._base.without_adapter():
            for start in range(0, len(order), _BATCH):
                part = order[start : start + _BATCH]
                whole = [studies[each[n][0]][0] for n in part]
                new = self._read_branches([each[n] for n in part], whole, upper)
                made.update(zip(part, new, strict=True))
        return [made[n] for n in range(len(each))]

    def _read_branches(
        self,
        branches: Sequence[tuple[int, Branch]],
        whole: Sequence[Prefix],
        upper: Sequence[Prefix],
    ) -> list[Reading]:
        rows = [torch.tensor(each.question + each.answer[:-1]) for _, each in branches]
        ids = pad_sequence(rows, batch_first=True).to(self._base.model.device)
        output = self._decode(
            self._base.model.get_input_embeddings()(ids),
            _side_by_side(whole),
            output_hidden_states=True,
        )
        entering, leaving = output.hidden_states[self.first], output.last_hidden_state
        readings = []
        for row, (study, branch) in enumerate(branches):
            length, asked = len(rows[row]), len(branch.question)
            hidden, said = entering[row, :length], leaving[row, asked - 1 : length]
            readings.append(Reading(branch, upper[study], hidden.clone(), said.clone()))
        return readings

    def run(self, readings: Sequence[Reading]) -> Run:
        """Run readings through these layers, with the adapter that is on."""
        left: dict[int, torch.Tensor] = {}
        for group in _alike([len(each.hidden) for each in readings]):
            some = [readings[number] for number in group]
            hidden = pad_sequence([each.hidden for each in some], batch_first=True)
            with self._only_these():
                leaving = self._decode(
                    hidden, _side_by_side([each.study for each in some], self.first)
                ).last_hidden_state
            for number, each, row in zip(group, some, leaving, strict=True):
                left[number] = row[len(each.branch.question) - 1 : len(each.hidden)]
        answers = [left[number] for number in range(len(readings))]
        targets = torch.tensor([token for each in readings for token in each.branch.answer])
        logits = self.head(torch.cat(answers)).float()
        return Run(logits, targets.to(logits.device), [len(answer) for answer in answers])

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of hidden states, (T, width) to (T, vocabulary)."""
        return self._base.model.get_output_embeddings()(hidden)

    def _decode(
        self,
        embeds: torch.Tensor,
        studies: dict[int, tuple[torch.Tensor, torch.Tensor]],
        **options,
    ):
        cache = DynamicCache(config=self._base.model.config.text_config)
        for number, (keys, values) in studies.items():
            cache.update(keys, values, number)
        known, new = keys.shape[2], embeds.shape[1]
        # Every row sees its study and what stands before; padding comes last, so nobody sees it.
        mask = torch.full((new, known + new), torch.finfo(embeds.dtype).min, dtype=embeds.dtype)
        mask = mask.triu(known + 1)[None, None].to(embeds.device)
        positions = torch.arange(known, known + new, device=embeds.device)[None]
        return self._decoder(
            inputs_embeds=embeds,
            attention_mask=mask.expand(len(embeds), -1, -1, -1),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **options,
        )

    @property
    def _decoder(self) -> nn.Module:
        return self._base.model.language_model.get_decoder()

    @contextmanager
    def _only_these(self) -> Iterator[None]:
        decoder = self._decoder
        whole = decoder.layers
        decoder.layers = whole[self.first :]
        try:
            yield
        finally:
            decoder.layers = whole


def _length(branch: Branch) -> int:
    return len(branch.question) + len(branch.answer)


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    """Divide rows, by number, into one or two groups, such that least is padded."""
    order = sorted(range(len(lengths)), key=lambda number: lengths[number])
    longest = lengths[order[-1]]

    def padded(cut: int) -> int:
        return cut * lengths[order[cut - 1]] + (len(order) - cut) * longest

    cut = min(range(len(order), 0, -1), key=padded)
    return [group for group in (order[:cut], order[cut:]) if group]


def _upper_part(study: Prefix, first: int) -> Prefix:
    return Prefix(tuple((keys.clone(), values.clone()) for keys, values in study.layers[first:]))


def _side_by_side(
    studies: Sequence[Prefix], first: int = 0
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Return keys and values of some studies as one batch, by number of the layer."""
    layers = zip(*(study.layers for study in studies), strict=True)
    return {
        number: (torch.cat([keys for keys, _ in layer]), torch.cat([v for _, v in layer]))
        for number, layer in enumerate(layers, start=first)
    }
