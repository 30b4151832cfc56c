"""Alignment of the grid tokens: the cells of the frozen stem, as tokens that tell pictures of the same labels apart.

Alignment of the encoder rewards whatever tells modality, plane and region, and nothing else survives it: its tokens span
five directions. The grid tokens pass by the encoder's layers, and are trained here on three things that labels alone
cannot give: every field that is known of a picture, its caption (without the labels) against those of pictures with the
same labels, and a spread over all directions (VICReg, arXiv 2105.04906). The stem's features are computed before, so
that a step costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from radfound.benchmark.scoring.rank import effective_rank
from radfound.datasets.example import Example
from radfound.model.modeling_radfound import GridProjector, RadFoundForConditionalGeneration
from radfound.model.processing_radfound import RadFoundProcessor
from training.loop.config import Draw, LoopConfig
from training.loop.optimise import optimise
from training.stages.align import caption_embeddings
from training.stages.instruct.encoded import EncodedStudies
from training.stages.objectives import contrast

_SHARED = 256  # width in which pictures and captions are compared


class GridObjective(nn.Module):
    """Fields, captions, spread and size of the grid tokens of single studies.

    Parameters
    ----------
    grid : GridProjector
    cells : sequence of bfloat16 tensors, shape (F, cells, channels)
        Of each study, frames as they come.
    examples : sequence of Example
        Their labels are the fields; their texts the captions.
    texts : float tensor, shape (studies, width)
        Embeddings of the captions; zero rows where there is none.
    embedding_std : float
        Of the language model's word embeddings, whose size the tokens take.
    """

    def __init__(
        self,
        grid: GridProjector,
        cells: Sequence[torch.Tensor],
        examples: Sequence[Example],
        texts: torch.Tensor,
        embedding_std: float,
    ):
        super().__init__()
        self.grid, self.cells, self.scale = grid, cells, embedding_std
        self.classes = {
            name: torch.tensor([words.index(e.labels[name]) if name in e.labels else -100 for e in examples])
            for name, words in _words(examples).items()
        }  # fmt: skip
        self.texts, self.captioned = texts, texts.abs().sum(1) > 0
        width = grid.position.shape[1]
        self.readouts = nn.ModuleDict(
            {name: nn.Linear(width, int(target.max()) + 1) for name, target in self.classes.items()}
        )
        self.study, self.text = nn.Linear(width, _SHARED), nn.Linear(texts.shape[1], _SHARED)
        self.log_scale = nn.Parameter(torch.tensor(2.5))
        groups: dict[tuple[str | None, ...], list[int]] = {}
        for number, each in enumerate(examples):
            key = tuple(each.labels.get(name) for name in ("modality", "plane", "region"))
            groups.setdefault(key, []).append(number)
        self.groups = [members for members in groups.values() if len(members) > 1]

    def forward(self, draw: Draw) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of a step's studies, half of them of the same modality, plane and region."""
        index = draw.indices(len(self.cells))
        chooser = draw.chooser()
        if self.groups:
            sizes = [len(members) for members in self.groups]
            alike = chooser.choices(self.groups, sizes)[0]
            half = chooser.sample(alike, min(len(alike), len(index) // 2))
            index = [*half, *index[: len(index) - len(half)]]
        parts = self.losses(index)
        total = torch.stack(list(parts.values())).sum()
        return total, {name: part.item() for name, part in parts.items()}

    def tokens(self, index: Sequence[int]) -> torch.Tensor:
        """Return the grid tokens of studies in units of a word embedding, shape (B, cells, width)."""
        device = self.log_scale.device
        mean = torch.stack([self.cells[i].float().mean(0) for i in index])[:, None].to(device)
        mask = torch.ones(mean.shape[:2], dtype=torch.bool, device=device)
        return self.grid(mean, mask).float() / self.scale

    def losses(self, index: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return the weighted parts of the loss of some studies."""
        tokens = self.tokens(index)
        pooled = tokens.mean(1)
        fields = [
            F.cross_entropy(self.readouts[name](pooled), target[index].to(pooled.device), label_smoothing=0.05)
            for name, target in self.classes.items()
            if (target[index] >= 0).any()
        ]  # fmt: skip
        parts = {
            "spread": spread(pooled),
            "size": 0.1 * (tokens.square().mean(-1) - 1.0).square().mean(),
        }
        if fields:
            parts["fields"] = torch.stack(fields).sum() / len(self.classes)
        known = torch.tensor(index)[self.captioned[index]]
        if len(known) > 1:
            words = self.texts[known].to(pooled.device)
            shown = pooled[self.captioned[index].to(pooled.device)]
            same = (words[:, None] == words[None]).all(-1)
            scale = self.log_scale.exp().clamp(max=50)
            parts["captions"] = 0.5 * contrast(self.study(shown), self.text(words), same, scale)
        return parts


def _words(examples: Sequence[Example]) -> dict[str, list[str]]:
    """Return the words of each field that has at least two."""
    words: dict[str, set[str]] = {}
    for each in examples:
        for name, word in each.labels.items():
            words.setdefault(name, set()).add(word)
    return {name: sorted(found) for name, found in sorted(words.items()) if len(found) > 1}


def spread(vectors: torch.Tensor, least: float = 0.5) -> torch.Tensor:
    """Return how far vectors (B, width) are from varying in every direction (VICReg, arXiv 2105.04906).

    The standard deviation of each component should be `least` or more, and the components uncorrelated.
    """
    centred = vectors - vectors.mean(0)
    std = (centred.square().mean(0) + 1e-4).sqrt()
    unit = centred / std
    covariance = unit.T @ unit / len(vectors)
    off = covariance.square().sum() - covariance.diagonal().square().sum()
    return F.relu(least - std).mean() / least + off / vectors.shape[1] ** 2 * 4.0


def align_grid(objective: GridObjective, *, steps: int, seed: int = 0) -> None:
    """Train the grid projector alone; about a minute on a CPU."""
    objective.grid.requires_grad_(True)
    learning = [p for p in objective.parameters() if p.requires_grad]
    loop = LoopConfig(
        steps, 1e-3, batch_size=128, warmup_steps=20, log_every=100, seed=seed, precision="fp32"
    )
    optimise(objective.train(), {1.0: learning}, loop)


def grid_objective(
    model: RadFoundForConditionalGeneration, processor: RadFoundProcessor, studies: EncodedStudies
) -> GridObjective | None:
    """Return the alignment of the grid tokens to the labels and captions of studies; None without grid tokens."""
    if model.connector.grid is None:
        return None
    captions = [e.text for e in studies.examples]
    known = [n for n, text in enumerate(captions) if text]
    texts = torch.zeros(len(captions), model.config.text_config.hidden_size)
    if known:
        texts[known] = caption_embeddings(
            model.language_model, processor.tokenizer, [captions[n] for n in known]
        )
    scale = float(model.get_input_embeddings().weight.detach().float().std())
    objective = GridObjective(
        model.connector.grid, studies.cells[0], studies.examples, texts, scale
    )
    return objective.to(model.device)


@torch.no_grad()
def grid_rank(model: RadFoundForConditionalGeneration, studies: EncodedStudies) -> float:
    """Return the effective rank of the mean grid token of studies."""
    cells = model.config.num_grid_tokens
    parts = [
        studies.visual(model.connector, list(chunk))[:, -cells:].float().mean(1)
        for chunk in torch.arange(len(studies)).split(32)
    ]
    return effective_rank(torch.cat(parts).cpu().numpy())
