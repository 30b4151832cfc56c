"""Alignment of vision encoder and connector with a frozen language model.

Four parts of one loss, see `AlignObjective`. Run as
`python -m training.stages.align --config training/stages/configs/align.yaml --data KIT --out DIR`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate.utils import set_seed
from torch import nn

from radfound.datasets.example import Example
from radfound.datasets.kit import Kit
from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
from radfound.model.processing_radfound import RadFoundProcessor
from radfound.model.stem import load_imagenet_stem
from radfound.study.frames import FrameConfig
from training.data.frame_bank import FrameBank, augment
from training.loop.config import Draw
from training.loop.manifest import hash_examples, write_manifest
from training.loop.optimise import optimise
from training.packing import branch, pack, packed_loss
from training.stages.common import StageConfig, load_parts, save_parts, stage_examples, stage_model
from training.stages.config import run_stage
from training.stages.grounding import right_words, slot_words, words_loss
from training.stages.objectives import contrast

LABELS = ("modality", "plane", "region")


@dataclass(frozen=True)
class AlignWeights:
    """Weights of the parts of the alignment loss."""

    labels: float = 1.0
    contrast: float = 0.5
    words: float = 1.0
    caption: float = 0.3


@dataclass(frozen=True, kw_only=True)
class AlignConfig(StageConfig):
    """Settings of the stage, in addition to `StageConfig`.

    Parameters
    ----------
    vision : Path, optional
        `vision.safetensors` of pretraining; by default a convolutional stem starts from ImageNet weights.
    weights : AlignWeights
    captions : int
        Captions per process and step; each costs a forward pass of the language model.
    frozen_blocks : int
        Number of early stem blocks that stay frozen: low-level features transfer from ImageNet, and
        these blocks cost most.
    stem_factor : float
        Learning rate of the rest of the stem, relative to the other parts.
    dropout : float
    """

    vision: Path | None = None
    weights: AlignWeights = field(default_factory=AlignWeights)
    captions: int = 6
    frozen_blocks: int = 5
    stem_factor: float = 0.3
    dropout: float = 0.0


@torch.no_grad()
def caption_embeddings(model: nn.Module, tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Return mean last hidden states, standardised over the texts, shape (len(texts), width)."""
    unique = sorted(set(texts), key=len)  # texts of similar length need little padding
    known: dict[str, torch.Tensor] = {}
    for start in range(0, len(unique), 32):
        chunk = unique[start : start + 32]
        batch = tokenizer(
            chunk,
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=64,
            return_tensors="pt",
        )
        hidden = model.get_decoder()(**batch).last_hidden_state.float()
        weight = batch["attention_mask"][..., None].float()
        known |= dict(zip(chunk, (hidden * weight).sum(1) / weight.sum(1), strict=True))
    pooled = torch.stack([known[text] for text in texts])
    return (pooled - pooled.mean(0)) / pooled.std(0).clamp(min=1e-3)


def contrast_text(example: Example) -> str:
    """Return the text for the contrastive loss: labels and caption, or the labels alone."""
    return ", ".join(filter(None, (*example.labels.values(), example.text)))


class Targets:
    """Targets of each study of a bank: classes, words of the slots, and captions.

    Parameters
    ----------
    examples : sequence of Example
    classes : mapping from "modality", "plane", "region" to their words
    processor : RadFoundProcessor
    """

    def __init__(
        self,
        examples: Sequence[Example],
        classes: Mapping[str, list[str]],
        processor: RadFoundProcessor,
    ):
        self.classes = {
            name: torch.tensor(
                [
                    words.index(e.labels[name]) if e.labels.get(name) in words else -100
                    for e in examples
                ]
            )
            for name, words in classes.items()
        }
        self.words = torch.tensor([slot_words(processor, e.labels) for e in examples])
        self.captions = [
            next((turn.answer for turn in e.turns if turn.task == "caption"), "") for e in examples
        ]


class AlignObjective(nn.Module):
    """Labels, contrast, words and captions of single frames.

    - labels: linear classifiers of modality, plane and region on the pooled visual tokens;
    - contrast: studies against the frozen language model's embedding of their captions (CLIP, arXiv
      2103.00020);
    - words: the first visual tokens match the embeddings of the label words (training/stages/grounding.py);
    - caption: cross-entropy of the caption under the frozen language model, given the visual tokens.

    Parameters
    ----------
    model : RadFoundForConditionalGeneration
    processor : RadFoundProcessor
    bank : FrameBank
    classes : mapping from "modality", "plane", "region" to their words
    weights : AlignWeights
    captions : int
        Captions per process and step.
    """

    def __init__(
        self,
        model: RadFoundForConditionalGeneration,
        processor: RadFoundProcessor,
        bank: FrameBank,
        classes: Mapping[str, list[str]],
        weights: AlignWeights,
        captions: int,
    ):
        super().__init__()
        self.model, self.processor, self.bank = model, processor, bank
        self.weights, self.captions = weights, captions
        self.targets = Targets(bank.examples, classes, processor)
        texts = [contrast_text(e) for e in bank.examples]
        self.texts = caption_embeddings(model.language_model, processor.tokenizer, texts)
        number = {text: n for n, text in enumerate(dict.fromkeys(texts))}
        self.text_numbers = torch.tensor([number[text] for text in texts])
        width, shared = model.config.vision_config.hidden_size, 256
        self.readouts = nn.ModuleDict(
            {name: nn.Linear(width, len(words)) for name, words in classes.items()}
        )
        self.study = nn.Linear(width, shared)
        self.text = nn.Linear(self.texts.shape[1], shared)
        self.log_scale = nn.Parameter(torch.tensor(2.5))
        self.prefix = processor.prompt_ids("caption", None)[0]

    def forward(self, draw: Draw) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of a step's studies, one frame each, and the parts of the loss."""
        generator = draw.generator()
        index = draw.indices(len(self.bank))
        rows = torch.cat([self.bank.frames_of(i, 1, generator) for i in index])
        device = self.log_scale.device
        tokens = self.resampled(augment(self.bank.pixels[rows], generator).to(device))
        pooled, visual = tokens.mean(1).float(), self.model.connector.projector(tokens)
        scores = {name: readout(pooled) for name, readout in self.readouts.items()}
        parts = {
            "labels": labels_loss(scores, self.targets, index),
            "contrast": self._contrast(pooled, index),
        }
        if self.weights.words:
            words = self.targets.words[index].to(device)
            parts["words"] = words_loss(visual.float(), words, self._embedding())
        if self.captions:
            parts["caption"] = self._captions(visual, index, self.captions)
        total = torch.stack([getattr(self.weights, name) * part for name, part in parts.items()])
        return total.sum(), {name: part.item() for name, part in parts.items()}

    def resampled(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the visual tokens of single frames before the projector: (B, 3, S, S) to (B, T, width)."""
        hidden = self.model.vision_model(pixel_values=pixels[:, None]).last_hidden_state
        mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        return self.model.connector.resample(hidden, mask)

    def _embedding(self) -> torch.Tensor:
        return self.model.get_input_embeddings().weight.detach().float()

    def _contrast(self, pooled: torch.Tensor, index: list[int]) -> torch.Tensor:
        words = self.texts[index].to(pooled.device)
        numbers = self.text_numbers[index].to(pooled.device)
        same = numbers[:, None] == numbers[None, :]
        scale = self.log_scale.exp().clamp(max=50)
        return contrast(self.study(pooled), self.text(words), same, scale)

    def _captions(self, visual: torch.Tensor, index: list[int], most: int) -> torch.Tensor:
        captioned = [n for n, i in enumerate(index) if self.targets.captions[i]][:most]
        if not captioned:
            return visual.sum() * 0.0
        branches = [
            [branch(self.processor, "caption", None, self.targets.captions[index[n]])]
            for n in captioned
        ]
        packed = pack(self.prefix, branches, self.processor.tokenizer.pad_token_id)
        return packed_loss(self.model, packed.to(visual.device), visual[captioned])

    @torch.no_grad()
    def evaluate(self, held: FrameBank, targets: Targets) -> dict[str, float]:
        """Return the loss and the accuracies of labels and words on held-out frames."""
        device = self.log_scale.device
        tokens = torch.cat(
            [
                self.resampled(chunk.to(device).float() / 255.0)
                for chunk in held.pixels[torch.cat(held.rows)].split(32)
            ]
        )
        pooled, visual = tokens.mean(1).float(), self.model.connector.projector(tokens).float()
        index = list(range(len(held)))
        scores = {name: readout(pooled) for name, readout in self.readouts.items()}
        loss = labels_loss(scores, targets, index)
        words = right_words(visual, targets.words.to(device), self._embedding())
        numbers = {"loss": loss.item()} | {f"{name}_word": share for name, share in words.items()}
        for name, logits in scores.items():
            target = targets.classes[name].to(device)
            if (target >= 0).any():
                right = (logits.argmax(1) == target)[target >= 0]
                numbers[name] = right.float().mean().item()
        return numbers


def labels_loss(
    scores: Mapping[str, torch.Tensor], targets: Targets, index: Sequence[int]
) -> torch.Tensor:
    """Return the label-smoothed cross-entropy over known labels, summed over the kinds of label."""
    losses = []
    for name, logits in scores.items():
        target = targets.classes[name][list(index)].to(logits.device)
        if (target >= 0).any():
            losses.append(F.cross_entropy(logits, target, label_smoothing=0.05))
    return torch.stack(losses).sum() if losses else next(iter(scores.values())).sum() * 0.0


def pictures(kit: Kit) -> list[Example]:
    """Return the kit's training images, including exams of several images."""
    return [
        *kit.medpix_figures(),
        *kit.vqa(),
        *kit.radiographs(),
        *kit.mammograms(),
        *kit.volumes(),
    ]


def held_pictures(kit: Kit) -> Iterable[Example]:
    """Return the kit's figures for validation."""
    return kit.medpix_figures("validation")


def single_frames(examples: Iterable[Example]) -> list[Example]:
    """Return the examples of one image that have a label or a caption."""
    return [e for e in examples if (e.labels or e.text) and len(e.files) == 1]


def align(config: AlignConfig) -> dict[str, float]:
    """Train stem, vision encoder and connector; write `vision.safetensors`."""
    set_seed(config.loop.seed)
    model, processor = stage_model(config.model, config.language_model)
    if config.vision:
        load_parts(config.vision, model)
    elif model.config.vision_config.stem == "efficientnet_lite0":
        load_imagenet_stem(model.vision_model.stem)
    set_dropout(model, config.dropout)
    frames = FrameConfig(model.config.vision_config.image_size, max_frames=8)
    examples = single_frames(stage_examples(config, pictures))
    held_back = single_frames(stage_examples(config, held_pictures, "validation"))
    bank = FrameBank(examples, frames)
    classes = {
        name: sorted({e.labels[name] for e in bank.examples if name in e.labels}) for name in LABELS
    }
    model.language_model.requires_grad_(False)
    if model.connector.grid is not None:  # instruction tuning aligns it, once the stem is frozen
        model.connector.grid.requires_grad_(False)
    objective = AlignObjective(model, processor, bank, classes, config.weights, config.captions)
    validate = None
    if held_back:
        held = FrameBank(held_back, frames)
        targets = Targets(held.examples, classes, processor)
        validate = partial(objective.evaluate, held, targets)
    stem = frozen_stem(model, config.frozen_blocks)
    history = optimise(
        objective.train(),
        learning_parts(objective, stem, config.stem_factor),
        config.loop,
        folder=config.out,
        validate=validate,
    )
    save_parts(
        config.out / "vision.safetensors",
        {"vision_model": model.vision_model, "connector": model.connector},
    )
    write_manifest(
        config.out,
        stage="align",
        config=config,
        data_hash=hash_examples(bank.examples),
        metrics=history[-1],
        files=["vision.safetensors"],
    )
    return history[-1]


def frozen_stem(model: RadFoundForConditionalGeneration, blocks: int) -> set[nn.Parameter]:
    """Freeze the first blocks of a convolutional stem; return all parameters of the stem."""
    stem = model.vision_model.stem
    if blocks and model.config.vision_config.stem == "efficientnet_lite0":
        for early in (stem.first, *stem.blocks[:blocks]):
            early.requires_grad_(False)
    return set(stem.parameters())


def learning_parts(
    objective: nn.Module, stem: set[nn.Parameter], stem_factor: float
) -> dict[float, list[nn.Parameter]]:
    """Return the trainable parameters by rate factor, in an order that a resumed run finds again."""
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in objective.parameters():
        if parameter.requires_grad:
            groups.setdefault(stem_factor if parameter in stem else 1.0, []).append(parameter)
    return groups


def set_dropout(model: nn.Module, share: float) -> None:
    """Set the dropout rate of all layers."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share


def main() -> None:
    """Command line."""
    run_stage("align", AlignConfig, align, __doc__)


if __name__ == "__main__":
    main()
