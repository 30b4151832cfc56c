"""Losses and the pretraining objective; the forward of an objective takes a `Draw` and returns the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from radfound.exceptions import TrainingError
from radfound.model.configuration_radfound import RadFoundVisionConfig
from radfound.model.modeling_radfound import Layer, PatchStem, RadFoundVisionModel
from training.data.frame_bank import FrameBank, augment
from training.loop.config import Draw


def contrast(
    study: torch.Tensor, text: torch.Tensor, same: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Symmetric InfoNCE in which several texts may belong to one study (CLIP, arXiv 2103.00020).

    Parameters
    ----------
    study, text : tensors, shape (B, width)
    same : bool tensor, shape (B, B)
        True where text j also belongs to study i, such as a caption shared by two figures of one case.
    scale : scalar tensor
    """
    logits = F.normalize(study, dim=-1) @ F.normalize(text, dim=-1).T * scale
    targets = same.float() / same.float().sum(1, keepdim=True)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets.T)) / 2


def contrast_within(
    vectors: torch.Tensor, owner: torch.Tensor, scale: float = 10.0
) -> torch.Tensor:
    """Supervised contrastive loss with the study as the class (arXiv 2004.11362).

    Parameters
    ----------
    vectors : tensor, shape (M, width)
    owner : int64 tensor, shape (M,)
        The study of each frame.

    Returns
    -------
    scalar tensor
        Zero if no study has two frames.
    """
    unit = F.normalize(vectors.float(), dim=-1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    log_share = (unit @ unit.T * scale).masked_fill(itself, -torch.inf).log_softmax(1)
    friends = (owner[:, None] == owner[None, :]) & ~itself
    has_friend = friends.any(1)
    if not has_friend.any():
        return unit.sum() * 0.0
    per_frame = log_share.masked_fill(~friends, 0.0).sum(1) / friends.sum(1).clamp(min=1)
    return -per_frame[has_friend].mean()


def patches_of(pixels: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Cut frames (M, 3, S, S) into patches, shape (M, N, 3 * patch_size ** 2), in row-major order."""
    return F.unfold(pixels, patch_size, stride=patch_size).transpose(1, 2)


def frames_from(patches: torch.Tensor, patch_size: int, image_size: int) -> torch.Tensor:
    """Assemble patches (M, N, 3 * patch_size ** 2) into frames (M, 3, S, S)."""
    return F.fold(patches.transpose(1, 2), image_size, patch_size, stride=patch_size)


def random_patches(
    frames: int, patches: int, keep: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the patches of each frame that stay visible.

    Returns
    -------
    kept : int64 tensor, shape (frames, keep)
    hidden : bool tensor, shape (frames, patches)
    """
    order = torch.rand(frames, patches, generator=generator).argsort(1)
    kept = order[:, :keep].sort(1).values
    hidden = torch.ones(frames, patches, dtype=torch.bool).scatter_(1, kept, False)
    return kept, hidden


class MaskedDecoder(nn.Module):
    """Small transformer from visible tokens to the pixels of every patch (MAE, arXiv 2111.06377)."""

    def __init__(self, vision: RadFoundVisionConfig, width: int, layers: int):
        super().__init__()
        config = RadFoundVisionConfig(
            hidden_size=width, intermediate_size=4 * width, num_attention_heads=max(1, width // 64)
        )
        self.embed = nn.Linear(vision.hidden_size, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.position = nn.Parameter(torch.randn(vision.patches_per_frame, width) * 0.02)
        self.layers = nn.ModuleList(Layer(config) for _ in range(layers))
        self.norm = nn.LayerNorm(width, vision.layer_norm_eps)
        self.pixels = nn.Linear(width, 3 * vision.patch_size**2)

    def forward(self, tokens: torch.Tensor, kept: torch.Tensor | None = None) -> torch.Tensor:
        """Map tokens (M, K, vision width) of the patches `kept` (M, K) to pixels (M, N, 3 * patch_size ** 2).

        Without `kept`, the tokens cover all N patches.
        """
        hidden = self.embed(tokens)
        if kept is not None:
            whole = self.mask_token.to(hidden.dtype).expand(len(hidden), len(self.position), -1)
            hidden = whole.scatter(1, kept[..., None].expand_as(hidden), hidden)
        hidden = hidden + self.position
        for layer in self.layers:
            hidden = layer(hidden)
        return self.pixels(self.norm(hidden))


@dataclass(frozen=True)
class PretrainWeights:
    """Weights of the parts of the pretraining loss; a part with weight 0 is not computed."""

    masked: float = 1.0
    context: float = 1.0
    contrast: float = 0.2


class PretrainObjective(nn.Module):
    """Masked image modelling inside each frame, and context across the frames of a study.

    Three parts, this project's reading of the paper's intra-image and inter-image learning:

    - masked (intra-image): most patches of every frame are masked; a decoder reconstructs their pixels from
      the rest (MAE, arXiv 2111.06377);
    - context (inter-image): one frame of each study with several is masked as a whole; the context layers
      predict it from the other frames and its position;
    - contrast (inter-image): frames of one study are contrasted with frames of other studies.

    Parameters
    ----------
    vision : RadFoundVisionModel
    bank : FrameBank
    frames_per_study : int
        Largest number of frames of a study in a step.
    mask_ratio : float
        Share of masked patches of a frame.
    decoder_width, decoder_layers : int
    weights : PretrainWeights
    """

    def __init__(
        self,
        vision: RadFoundVisionModel,
        bank: FrameBank,
        *,
        frames_per_study: int = 4,
        mask_ratio: float = 0.6,
        decoder_width: int = 192,
        decoder_layers: int = 2,
        weights: PretrainWeights | None = None,
    ):
        super().__init__()
        if not 0.0 < mask_ratio < 1.0:
            raise TrainingError(f"mask_ratio is {mask_ratio}; expected a share between 0 and 1")
        self.vision = vision
        self.bank = bank
        self.frames_per_study = frames_per_study
        self.weights = weights or PretrainWeights()
        self.visible = max(1, round(vision.config.patches_per_frame * (1.0 - mask_ratio)))
        self.decoder = MaskedDecoder(vision.config, decoder_width, decoder_layers)
        self.unseen = nn.Parameter(torch.randn(vision.config.hidden_size) * 0.02)
        self.projection = nn.Linear(vision.config.hidden_size, 128)

    def forward(self, draw: Draw) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of a step's studies and its parts."""
        generator = draw.generator()
        studies = [
            self.bank.frames_of(index, self.frames_per_study, generator)
            for index in draw.indices(len(self.bank))
        ]
        owner = torch.repeat_interleave(
            torch.arange(len(studies)), torch.tensor([len(rows) for rows in studies])
        )
        rows = torch.cat(studies)
        pixels = augment(self.bank.pixels[rows], generator, owner)
        return self.loss(pixels, rows, owner, generator)

    def loss(
        self,
        pixels: torch.Tensor,
        rows: torch.Tensor,
        owner: torch.Tensor,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of frames (M, 3, S, S) in [0, 1], which are `rows` (M,) of the bank.

        `owner` (M,), ascending, is the study of each frame.
        """
        device = self.unseen.device
        config = self.vision.config
        kept, hidden = random_patches(
            len(pixels), config.patches_per_frame, self.visible, generator
        )
        pixels, kept, hidden = pixels.to(device), kept.to(device), hidden.to(device)
        target = normalised_patches(pixels, config.patch_size)
        visible = self.vision.look_inside(self._features(pixels, hidden), kept)
        parts: dict[str, torch.Tensor] = {}
        if self.weights.masked:
            error = (self.decoder(visible, kept).float() - target).square().mean(-1)
            parts["masked"] = error[hidden].mean()
        if self.weights.context:
            parts["context"] = self._context(visible, target, rows, owner, generator)
        if self.weights.contrast:
            pooled = self.projection(visible.mean(1))
            parts["contrast"] = contrast_within(pooled, owner.to(device))
        total = torch.stack([getattr(self.weights, name) * part for name, part in parts.items()])
        return total.sum(), {name: part.item() for name, part in parts.items()}

    def _features(self, pixels: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Run the stem; a convolutional stem gets hidden patches in grey, so that nothing leaks."""
        if not isinstance(self.vision.stem, PatchStem):
            size = self.vision.config.patch_size
            side = self.vision.config.image_size // size
            grey = hidden.view(-1, 1, side, side).float()
            grey = F.interpolate(grey, scale_factor=size, mode="nearest")
            pixels = pixels * (1.0 - grey) + 0.5 * grey
        return self.vision.stem_features(pixels)

    def _context(
        self,
        visible: torch.Tensor,
        target: torch.Tensor,
        rows: torch.Tensor,
        owner: torch.Tensor,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Predict one frame of each study from the others; zero if no study has two frames."""
        frames = [torch.nonzero(owner == study)[:, 0] for study in owner.unique()]
        frames = [f for f in frames if len(f) > 1]
        if not frames:
            return (self.unseen.sum() + self.vision.norm.weight.sum()) * 0.0
        most, device = max(map(len, frames)), visible.device
        # Padding repeats the first frame and is masked.
        index = torch.stack([torch.cat([f, f[:1].expand(most - len(f))]) for f in frames])
        mask = torch.tensor([[n < len(f) for n in range(most)] for f in frames])
        missing = torch.tensor(
            [int(torch.randint(len(f), (1,), generator=generator)) for f in frames]
        )
        mask[torch.arange(len(frames)), missing] = False
        place = self.vision.place(
            *(
                values[rows[index]].to(device)
                for values in (self.bank.positions_mm, self.bank.planes, self.bank.views)
            )
        )
        context = (visible[index.to(device)] + place[:, :, None]).flatten(1, 2)
        context_mask = mask.to(device).repeat_interleave(visible.shape[1], dim=1)
        missing_place = place[torch.arange(len(frames)), missing]
        queries = self.unseen + self.vision.patch_position + missing_place[:, None]
        tokens = torch.cat([context, queries.to(context.dtype)], dim=1)
        token_mask = F.pad(context_mask, (0, queries.shape[1]), value=True)
        predicted = self.vision.look_across(tokens, token_mask)[:, -queries.shape[1] :]
        missing_target = target[index[torch.arange(len(frames)), missing].to(device)]
        return (self.decoder(predicted).float() - missing_target).square().mean()

    @torch.no_grad()
    def picture(self, rows: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """Return frames, masked frames and reconstructions in three rows: (3, 3 * S, frames * S) in [0, 1]."""
        config = self.vision.config
        pixels = self.bank.pixels[rows].float() / 255.0
        generator = torch.Generator().manual_seed(seed)
        kept, hidden = random_patches(len(rows), config.patches_per_frame, self.visible, generator)
        device = self.unseen.device
        with torch.autocast(device.type, torch.bfloat16):
            features = self._features(pixels.to(device), hidden.to(device))
            visible = self.vision.look_inside(features, kept.to(device))
            predicted = self.decoder(visible, kept.to(device)).float().cpu()
        patches = patches_of(pixels, config.patch_size)
        mean, std = _patch_scale(patches)
        rebuilt = torch.where(hidden[..., None], predicted * std + mean, patches)
        masked = torch.where(hidden[..., None], torch.full_like(patches, 0.5), patches)
        lines = [
            frames_from(each, config.patch_size, config.image_size).clamp(0.0, 1.0)
            for each in (patches, masked, rebuilt)
        ]
        return torch.cat([torch.cat(list(line), dim=-1) for line in lines], dim=-2)


def normalised_patches(pixels: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Return patches normalised to mean 0 and standard deviation 1; flat ones stay small."""
    patches = patches_of(pixels, patch_size)
    mean, std = _patch_scale(patches)
    return (patches - mean) / std


def _patch_scale(patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # The floor keeps noise in an empty background from weighing as much as anatomy.
    return patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + 1e-3).sqrt()
