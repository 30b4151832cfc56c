"""What instruction tuning minimises: the loss of answers, and of what keeps the visual tokens apart."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
from radfound.model.processing_radfound import RadFoundProcessor
from training.loop.config import Draw
from training.packing import Branch, branch, pack, packed_logits, packed_losses, token_losses
from training.stages.grounding import slot_words, words_loss
from training.stages.instruct.config import InstructConfig
from training.stages.instruct.encoded import EncodedStudies
from training.stages.instruct.grid import GridObjective

_SWAPPED = 3  # questions of a study that are also asked of another image
_MARGIN = 1.0  # nats for each token of an answer


class InstructObjective(nn.Module):
    """Cross-entropy of the answers to questions drawn for each study of a step.

    Parameters
    ----------
    model : RadFoundForConditionalGeneration
    processor : RadFoundProcessor
    studies : EncodedStudies
    order : sequence of int
        Indices of the studies of an epoch, with repetitions.
    texts : sequence of str
        Plain radiology texts; may be empty.
    config : InstructConfig
    grid : GridObjective, optional
        Keeps the grid tokens from collapsing while the language model learns.
    """

    def __init__(
        self,
        model: RadFoundForConditionalGeneration,
        processor: RadFoundProcessor,
        studies: EncodedStudies,
        order: Sequence[int],
        texts: Sequence[str],
        config: InstructConfig,
        grid: GridObjective | None = None,
    ):
        super().__init__()
        self.grid = grid
        self.model, self.processor, self.studies = model, processor, studies
        self.order, self.texts, self.config = order, texts, config
        self.prefix = processor.prompt_ids("caption", None)[0]
        self.words = torch.tensor([slot_words(processor, e.labels) for e in studies.examples])
        self.turns = [
            [turn_branches(processor, turn) for turn in example.turns]
            for example in studies.examples
        ]
        # Questions about this image alone, not about a label that others share.
        self.own = [
            [
                each
                for turn, wordings in zip(e.turns, tokens, strict=True)
                if turn.id
                for each in wordings
            ]
            for e, tokens in zip(studies.examples, self.turns, strict=True)
        ]
        self.yes, self.no = (
            sorted(
                {processor.answer_ids(word)[0] for word in (text, text.capitalize(), text.upper())}
            )
            for text in ("yes", "no")
        )
        self.alike: dict[str, list[int]] = {}
        for number, example in enumerate(studies.examples):
            self.alike.setdefault(example.labels.get("region", ""), []).append(number)

    def forward(self, draw: Draw) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of a step's studies and its parts."""
        chooser = draw.chooser()
        indices = [self.order[n] for n in draw.indices(len(self.order))]
        chosen = [self.branches(i, chooser) for i in indices]
        view = chooser.randrange(len(self.studies.views))
        parts = self.losses(self.studies, indices, chosen, view, chooser)
        config = self.config
        weights = {"answers": 1.0, "words": config.words, "wording": config.wording}
        weights |= {"swap": config.swap, "decide": config.decide, "grid": config.grid}
        if config.wording and self.texts:
            parts["wording"] = self._wording(chooser)
        if config.grid and self.grid is not None:
            sample = chooser.sample(range(len(self.studies)), min(128, len(self.studies)))
            parts["grid"] = torch.stack(list(self.grid.losses(sample).values())).sum()
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        return total, {name: part.item() for name, part in parts.items()}

    def losses(
        self,
        studies: EncodedStudies,
        indices: Sequence[int],
        chosen: Sequence[Sequence[Branch]],
        view: int = 0,
        chooser: random.Random | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the losses of the answers `chosen` about studies, of yes and no, of the grounding, and, with `chooser`, of the swap."""
        device = self.model.device
        visual = studies.visual(self.model.connector, indices, view)
        packed = pack(self.prefix, chosen, self.processor.tokenizer.pad_token_id).to(device)
        logits = packed_logits(self.model, packed, visual).float()
        losses = token_losses(logits, packed)
        parts = {"answers": (losses * packed.weights).sum() / packed.weights.sum()}
        if self.config.words and studies is self.studies:
            embedding = self.model.get_input_embeddings().weight.detach().float()
            words = self.words[list(indices)].to(device)
            parts["words"] = words_loss(visual.float(), words, embedding)
        if self.config.decide and studies is self.studies:
            parts["decide"] = self._decide(indices, chosen, logits)
        if self.config.swap and chooser is not None:
            parts["swap"] = self._swap(indices, chosen, losses, view, chooser)
        return parts

    def _decide(
        self,
        indices: Sequence[int],
        chosen: Sequence[Sequence[Branch]],
        logits: torch.Tensor,
    ) -> torch.Tensor:
        """Return the cross-entropy of yes beside no, in questions about one image alone; 0 without any."""
        rows: list[int] = []
        is_yes: list[float] = []
        start = 0
        for index, branches in zip(indices, chosen, strict=True):
            for each in branches:
                if each.answer[0] in (*self.yes, *self.no) and each in self.own[index]:
                    rows.append(start)
                    is_yes.append(float(each.answer[0] in self.yes))
                start += len(each.answer)
        if not rows:
            return logits.sum() * 0.0
        first = logits[rows]
        odds = first[:, self.yes].logsumexp(1) - first[:, self.no].logsumexp(1)
        return F.binary_cross_entropy_with_logits(odds, torch.tensor(is_yes, device=odds.device))

    def _swap(
        self,
        indices: Sequence[int],
        chosen: Sequence[Sequence[Branch]],
        losses: torch.Tensor,
        view: int,
        chooser: random.Random,
    ) -> torch.Tensor:
        """Return by how much answers miss the margin between the right image and one of the same region."""
        right = _mean_by_answer(losses, chosen)
        asked: list[list[Branch]] = []
        others: list[int] = []
        with_right: list[torch.Tensor] = []
        start = 0
        for index, branches in zip(indices, chosen, strict=True):
            own = [n for n, each in enumerate(branches) if each in self.own[index]][:_SWAPPED]
            alike = self.alike[self.studies.examples[index].labels.get("region", "")]
            mine = self.studies.examples[index].key
            other = chooser.choice(alike)
            if own and self.studies.examples[other].key != mine:
                asked.append([branches[n] for n in own])
                others.append(other)
                with_right += [right[start + n] for n in own]
            start += len(branches)
        if not asked:
            return losses.sum() * 0.0
        packed = pack(self.prefix, asked, self.processor.tokenizer.pad_token_id)
        visual = self.studies.visual(self.model.connector, others, view)
        swapped = packed_losses(self.model, packed.to(self.model.device), visual)
        with_other = torch.stack(_mean_by_answer(swapped, asked))
        return F.relu(_MARGIN - (with_other - torch.stack(with_right))).mean()

    def branches(self, index: int, chooser: random.Random) -> list[Branch]:
        """Draw turns of a study, one wording each, up to `tokens_per_study`."""
        turns = self.turns[index]
        drawn: list[Branch] = []
        left = self.config.tokens_per_study
        for turn in chooser.sample(turns, len(turns)):
            wording = chooser.choice(turn)
            size = packed_length([wording])
            if drawn and size > left:
                continue
            drawn.append(wording)
            left -= size
        return drawn

    def _wording(self, chooser: random.Random, rows: int = 2, tokens: int = 64) -> torch.Tensor:
        ids = [self.processor.text_ids(chooser.choice(self.texts))[:tokens] for _ in range(rows)]
        longest = max(map(len, ids))
        batch = torch.tensor([row + [-100] * (longest - len(row)) for row in ids])
        batch = batch.to(self.model.device)
        logits = self.model.language_model(input_ids=batch.clamp(min=0)).logits
        return F.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), batch[:, 1:].flatten(), ignore_index=-100
        )

    @torch.no_grad()
    def evaluate(self, held: EncodedStudies, size: int = 8) -> dict[str, float]:
        """Return the mean loss of the first turns of held-out studies."""
        turns = [
            [turn_branches(self.processor, turn)[0] for turn in example.turns[:8]]
            for example in held.examples
        ]
        # Studies of similar length need little padding.
        order = sorted(range(len(held)), key=lambda i: packed_length(turns[i]))
        total = 0.0
        for batch in (order[start : start + size] for start in range(0, len(order), size)):
            parts = self.losses(held, batch, [turns[i] for i in batch])
            total += len(batch) * parts["answers"].item()
        return {"loss": total / len(held)}


def _mean_by_answer(losses: torch.Tensor, chosen: Sequence[Sequence[Branch]]) -> list[torch.Tensor]:
    """Return the mean of the tokens' losses for each answer of each study."""
    lengths = [len(each.answer) for branches in chosen for each in branches]
    return [answer.mean() for answer in losses.split(lengths)]


def packed_length(branches: Sequence[Branch]) -> int:
    """Return the number of tokens of a study's questions and answers."""
    return sum(len(b.question) + len(b.answer) for b in branches)


def turn_branches(processor: RadFoundProcessor, turn) -> list[Branch]:
    """Tokenise each wording of a turn."""
    return [
        branch(processor, turn.task, question, turn.answer)
        for question in turn.questions or (None,)
    ]
