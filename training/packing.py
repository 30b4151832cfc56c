"""Several questions about one study in one sequence.

The prefix (system prompt and study) occurs once. Each question with its answer follows as a branch that
attends to the prefix and itself only. The loss equals that of separate sequences, at a fraction of the
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
from radfound.model.processing_radfound import RadFoundProcessor


@dataclass(frozen=True)
class Branch:
    """Token ids of a question and of its target answer (stop token included)."""

    question: list[int]
    answer: list[int]


@dataclass(frozen=True, eq=False)
class Packed:
    """A batch of packed sequences.

    Parameters
    ----------
    input_ids, position_ids : int64 tensors, shape (B, L)
    attention_mask : bool tensor, shape (B, 1, L, L)
    predictors, targets : int64 tensors, shape (T,)
        Flat positions whose next token is part of an answer, and that token.
    weights : float tensor, shape (T,)
        Weights of the targets: length ** -0.5 for each token of an answer.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor
    predictors: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor

    def to(self, device: torch.device | str) -> Packed:
        """Return the batch on a device."""
        return Packed(**{name: value.to(device) for name, value in vars(self).items()})


def branch(
    processor: RadFoundProcessor,
    task: str,
    question: str | None,
    answer: str,
    limit: int | None = 72,
) -> Branch:
    """Tokenise one question and answer; an answer over `limit` tokens is cut, without a stop token."""
    _, after = processor.prompt_ids(task, question)
    return Branch(after, processor.answer_ids(answer)[:limit])


def pack(prefix: Sequence[int], studies: Sequence[Sequence[Branch]], pad_id: int) -> Packed:
    """Pack the branches of B studies behind one prefix each."""
    start = len(prefix)
    lengths = [
        start + sum(len(b.question) + len(b.answer) for b in branches) for branches in studies
    ]
    longest = max(lengths)
    ids = torch.full((len(studies), longest), pad_id)
    positions = torch.zeros(len(studies), longest, dtype=torch.long)
    owner = torch.full(
        (len(studies), longest), -1
    )  # branch of each token; 0 is the prefix, -1 padding
    predictors: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    for row, branches in enumerate(studies):
        ids[row, :start] = torch.tensor(prefix)
        positions[row, :start] = torch.arange(start)
        owner[row, :start] = 0
        offset = start
        for number, piece in enumerate(branches, start=1):
            tokens = piece.question + piece.answer
            end = offset + len(tokens)
            ids[row, offset:end] = torch.tensor(tokens)
            positions[row, offset:end] = torch.arange(start, start + len(tokens))
            owner[row, offset:end] = number
            first = offset + len(piece.question) - 1
            predictors += range(row * longest + first, row * longest + end - 1)
            targets += piece.answer
            weights += [len(piece.answer) ** -0.5] * len(piece.answer)
            offset = end
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    same = (owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == 0)
    mask = causal & same & (owner[:, None, :] >= 0)
    mask |= torch.eye(
        longest, dtype=torch.bool
    )  # padding attends to itself: an empty row would give NaN
    return Packed(
        ids,
        positions,
        mask[:, None],
        torch.tensor(predictors),
        torch.tensor(targets),
        torch.tensor(weights),
    )


def _attention_bias(packed: Packed, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive attention mask, shape (B, 1, L, L): 0 where a token may attend."""
    mask = packed.attention_mask
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill(~mask, torch.finfo(dtype).min)


def packed_logits(
    model: RadFoundForConditionalGeneration, packed: Packed, visual_embeds: torch.Tensor
) -> torch.Tensor:
    """Return the logits that predict the answer tokens, shape (T, vocabulary)."""
    embeds = model.merge_visual_embeds(packed.input_ids, visual_embeds)
    decoder = model.language_model.get_decoder()
    hidden = decoder(
        inputs_embeds=embeds,
        attention_mask=_attention_bias(packed, embeds.dtype),
        position_ids=packed.position_ids,
        use_cache=False,
    ).last_hidden_state
    return model.get_output_embeddings()(hidden.flatten(0, 1)[packed.predictors])


def packed_losses(
    model: RadFoundForConditionalGeneration, packed: Packed, visual_embeds: torch.Tensor
) -> torch.Tensor:
    """Return the cross-entropy of each answer token, shape (T,)."""
    return token_losses(packed_logits(model, packed, visual_embeds), packed)


def token_losses(logits: torch.Tensor, packed: Packed) -> torch.Tensor:
    """Return the cross-entropy of each answer token, shape (T,), from the logits that predict it."""
    return F.cross_entropy(logits.float(), packed.targets, reduction="none")


def packed_loss(
    model: RadFoundForConditionalGeneration, packed: Packed, visual_embeds: torch.Tensor
) -> torch.Tensor:
    """Return the weighted mean cross-entropy of the answers."""
    losses = packed_losses(model, packed, visual_embeds)
    return (losses * packed.weights).sum() / packed.weights.sum()
