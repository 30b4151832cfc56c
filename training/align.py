"""Alignment: the vision encoder learns what frames show, from labels and from captions.

Two objectives on the study's pooled visual tokens: a linear read-out of modality, plane and region, and
contrast between studies and the frozen language model's embedding of their captions (CLIP, arXiv
2103.00020). Run as `python -m training.align --data KIT --out DIR`.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from radfound.checkpoints import language_model_path, new_mini_model
from radfound.datasets import Example, Kit
from radfound.frames import FrameConfig
from radfound.modeling_radfound import RadFoundForConditionalGeneration
from training.framebank import FrameBank, augment
from training.loop import LoopConfig, epoch_order, optimise
from training.stem_weights import load_imagenet_stem

logger = logging.getLogger(__name__)
LABELS = ("modality", "plane", "region")
FROZEN_BLOCKS = 5


class AlignmentHeads(nn.Module):
    """Linear read-outs and the two projections of the contrast; thrown away after this stage."""

    def __init__(
        self, width: int, classes: dict[str, list[str]], text_width: int, shared: int = 256
    ):
        super().__init__()
        self.readouts = nn.ModuleDict(
            {name: nn.Linear(width, len(words)) for name, words in classes.items()}
        )
        self.study = nn.Linear(width, shared)
        self.text = nn.Linear(text_width, shared)
        self.log_scale = nn.Parameter(torch.tensor(2.5))


@torch.no_grad()
def caption_embeddings(texts: list[str], batch_size: int = 32) -> torch.Tensor:
    """Return the mean of the frozen language model's last hidden states, shape (len(texts), width)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = language_model_path()
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="right")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).model.eval()
    unique = sorted(set(texts), key=len)  # neighbours of one length need little padding
    known: dict[str, torch.Tensor] = {}
    for start in range(0, len(unique), batch_size):
        some = unique[start : start + batch_size]
        batch = tokenizer(some, padding=True, truncation=True, max_length=64, return_tensors="pt")
        hidden = model(**batch).last_hidden_state.float()
        weight = batch["attention_mask"][..., None].float()
        known |= dict(zip(some, (hidden * weight).sum(1) / weight.sum(1), strict=True))
    pooled = torch.stack([known[text] for text in texts])
    return (pooled - pooled.mean(0)) / pooled.std(0).clamp(min=1e-3)


def contrast(
    study: torch.Tensor, text: torch.Tensor, same: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Symmetric InfoNCE in which several texts may belong to one study.

    Parameters
    ----------
    study, text : tensors, shape (B, width)
    same : bool tensor, shape (B, B)
        True where text j also belongs to study i, as the shared caption of two figures of one case does.
    scale : scalar tensor
    """
    logits = F.normalize(study, dim=-1) @ F.normalize(text, dim=-1).T * scale
    targets = same.float() / same.float().sum(1, keepdim=True)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets.T)) / 2


def contrast_text(example: Example) -> str:
    """Return what the contrast reads: the labels and the caption, or the labels alone."""
    return ", ".join(filter(None, (*example.labels.values(), example.text)))


def study_embedding(
    model: RadFoundForConditionalGeneration, **inputs: torch.Tensor
) -> torch.Tensor:
    """Mean of the resampled tokens, shape (B, vision width)."""
    hidden = model.vision_model(**inputs).last_hidden_state
    mask = torch.ones(hidden.shape[:2], dtype=torch.bool)
    return model.connector.resample(hidden, mask).mean(1).float()


def align(data: Path, out: Path, config: LoopConfig, batch_size: int) -> None:
    """Train stem, vision encoder and resampler; write `vision.safetensors` into `out`."""
    kit = Kit(data)
    examples = [*kit.medpix_figures(), *kit.radiographs(), *kit.mammograms(), *kit.volumes()]
    examples = [example for example in examples if example.labels and len(example.files) == 1]
    model = new_mini_model()
    load_imagenet_stem(model.vision_model.stem)
    del model.language_model
    bank = FrameBank(examples, FrameConfig(max_frames=8))
    classes = {
        name: sorted({e.labels[name] for e in bank.examples if name in e.labels}) for name in LABELS
    }
    targets = {
        name: torch.tensor(
            [words.index(e.labels[name]) if name in e.labels else -100 for e in bank.examples]
        )
        for name, words in classes.items()
    }
    texts = caption_embeddings([contrast_text(example) for example in bank.examples])
    width = model.config.vision_config.hidden_size
    heads = AlignmentHeads(width, classes, texts.shape[1])
    trained = nn.ModuleDict(
        {"vision": model.vision_model, "connector": model.connector, "heads": heads}
    )
    model.connector.projector.requires_grad_(False)
    # Edges and textures are the same in a radiograph as in ImageNet, and the early layers cost most.
    for early in (model.vision_model.stem.first, *model.vision_model.stem.blocks[:FROZEN_BLOCKS]):
        early.requires_grad_(False)
    model.train()

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        index = epoch_order(len(bank), step, batch_size, config.seed)
        rows = torch.cat([bank.frames_of(i, 1, generator) for i in index])
        pixels = augment(bank.pixels[rows], generator)
        with torch.autocast("cpu", torch.bfloat16):
            study = study_embedding(model, pixel_values=pixels[:, None])
        numbers = {}
        loss = torch.zeros(())
        for name, readout in heads.readouts.items():
            wanted = targets[name][index]
            if (wanted >= 0).any():
                scores = readout(study)
                loss = loss + F.cross_entropy(scores, wanted, label_smoothing=0.05)
                numbers[name] = (scores.argmax(1) == wanted)[wanted >= 0].float().mean().item()
        words = texts[index]
        same = (words @ words.T) > 0.999 * (words * words).sum(1, keepdim=True)
        pair = contrast(
            heads.study(study), heads.text(words), same, heads.log_scale.exp().clamp(max=50)
        )
        numbers["contrast"] = pair.item()
        return loss + 0.5 * pair, numbers

    stem = set(model.vision_model.stem.parameters())
    rest = [p for p in trained.parameters() if p.requires_grad and p not in stem]
    optimise(
        trained,
        {0.3: [p for p in stem if p.requires_grad], 1.0: rest},
        loss_of,
        config,
        folder=out,
        progress=lambda p: logger.info(
            "%d/%d loss %.3f, %.0f s left", p.step, p.total, p.loss, p.seconds_left
        ),
    )
    state = {f"vision_model.{k}": v.clone() for k, v in model.vision_model.state_dict().items()}
    state |= {f"connector.{k}": v.clone() for k, v in model.connector.state_dict().items()}
    save_file(state, out / "vision.safetensors")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = LoopConfig(
        args.steps, args.learning_rate, seed=args.seed, checkpoint_every=100, log_every=10
    )
    align(args.data, args.out, config, args.batch_size)


if __name__ == "__main__":
    main()
