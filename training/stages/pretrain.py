"""Pretraining of the vision encoder on images alone, within frames and across frames.

One mixture of slices of volumes, several views of one study, and single images; see
`training.stages.objectives.PretrainObjective`. Run as
`python -m training.stages.pretrain --config training/stages/configs/pretrain.yaml --data KIT --out DIR`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from accelerate.utils import set_seed

from radfound.datasets.example import Example
from radfound.datasets.kit import Kit
from radfound.model.checkpoints import load, mini_config
from radfound.model.configuration_radfound import RadFoundVisionConfig
from radfound.model.modeling_radfound import RadFoundVisionModel
from radfound.model.sizes import size_config
from radfound.model.stem import load_imagenet_stem
from radfound.study.frames import FrameConfig
from training.data.frame_bank import FrameBank
from training.loop.manifest import hash_examples, write_manifest
from training.loop.optimise import optimise
from training.stages.common import StageConfig, save_parts, stage_examples
from training.stages.config import run_stage
from training.stages.objectives import PretrainObjective, PretrainWeights


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(StageConfig):
    """Settings of the stage, in addition to `StageConfig`; no language model is needed.

    Parameters
    ----------
    frames_per_study : int
    mask_ratio : float
    decoder_width, decoder_layers : int
    weights : PretrainWeights
        0 switches a part of the loss off, as in the ablation.
    train_stem : bool
        Whether to train a convolutional stem too, from ImageNet weights.
    volume_repeats : int
        Repetitions in an epoch of a volume or an exam of several views.
    validation_share : float
        Share of the studies that is held out for validation.
    """

    frames_per_study: int = 4
    mask_ratio: float = 0.6
    decoder_width: int = 192
    decoder_layers: int = 2
    weights: PretrainWeights = field(default_factory=PretrainWeights)
    train_stem: bool = False
    volume_repeats: int = 20
    validation_share: float = 0.04


def pictures(kit: Kit, volume_repeats: int) -> list[Example]:
    """Return all training images of the kit, studies of many frames several times."""
    cases = [case for case in kit.medpix_cases() if len(case.files) > 1]
    volumes = list(kit.volumes(slices_per_plane=16))
    deep = [example for example in volumes if example.region is None]
    deep += [example for example in kit.mammograms() if len(example.files) > 1]
    return [
        *kit.medpix_figures(),
        *kit.vqa(),
        *kit.radiographs(every_nth_small=1),
        *kit.mammograms(),
        *volumes,
        *cases,
        *deep * (volume_repeats - 1),
    ]


def vision_config(name: str) -> RadFoundVisionConfig:
    """Return the vision encoder's configuration of a model that `StageConfig` may name."""
    if name == "radfound-tiny":
        return load(name)[0].config.vision_config
    config = mini_config() if name == "radfound-mini" else size_config(name)
    return config.vision_config


def pretrain(config: PretrainConfig) -> dict[str, float]:
    """Train and write `vision.safetensors` and `manifest.json`; return the last logged numbers."""
    set_seed(config.loop.seed)
    vision = RadFoundVisionModel(vision_config(config.model))
    if vision.config.stem == "efficientnet_lite0":
        load_imagenet_stem(vision.stem)
        vision.stem.requires_grad_(config.train_stem)
    examples = stage_examples(config, lambda kit: pictures(kit, config.volume_repeats))
    bank = FrameBank(examples, FrameConfig(vision.config.image_size, max_frames=16))
    held, bank = bank.divided(config.validation_share, config.loop.seed)
    objective = PretrainObjective(
        vision,
        bank,
        frames_per_study=config.frames_per_study,
        mask_ratio=config.mask_ratio,
        decoder_width=config.decoder_width,
        decoder_layers=config.decoder_layers,
        weights=config.weights,
    )
    history = optimise(
        objective,
        {1.0: [p for p in objective.parameters() if p.requires_grad]},
        config.loop,
        folder=config.out,
        validate=lambda: validation_loss(objective, held),
        picture=lambda: objective.picture(torch.cat(held.rows)[:6]),
    )
    save_parts(config.out / "vision.safetensors", {"vision_model": vision})
    write_manifest(
        config.out,
        stage="pretrain",
        config=config,
        data_hash=hash_examples(examples),
        metrics=history[-1],
        files=["vision.safetensors"],
    )
    return history[-1]


@torch.no_grad()
def validation_loss(objective: PretrainObjective, held: FrameBank) -> dict[str, float]:
    """Return the loss on held-out studies, with fixed masks."""
    bank, objective.bank = objective.bank, held
    losses = []
    try:
        for index in range(0, len(held), 16):
            generator = torch.Generator().manual_seed(index)
            studies = [
                held.frames_of(i, objective.frames_per_study, generator)
                for i in range(index, min(index + 16, len(held)))
            ]
            owner = torch.repeat_interleave(
                torch.arange(len(studies)), torch.tensor([len(rows) for rows in studies])
            )
            rows = torch.cat(studies)
            pixels = held.pixels[rows].float() / 255.0
            losses.append(objective.loss(pixels, rows, owner, generator)[0].item())
    finally:
        objective.bank = bank
    return {"loss": sum(losses) / len(losses)}


def main() -> None:
    """Command line."""
    run_stage("pretrain", PretrainConfig, pretrain, __doc__)


if __name__ == "__main__":
    main()
