"""Numbers that describe a frame: what the convolutions of the encoder's stem see, frozen.

Taken before the layers that the alignment has collapsed to a few labels. Four parts:

- `pooled`: the mean of the last features over the frame;
- `texture`: means and products of the features of two inner layers, after a projection (bilinear pooling, Lin et
  al. 2015, arXiv 1504.07889), which keep what is needed for the weighting of an MR image;
- `sides`: the last features of the left half of the frame less those of the right half;
- `inner`: mean and standard deviation of the features of the two inner layers, which tell how a picture was made.

The first two are means over the frame and its mirror image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radfound.exceptions import CheckpointError
from radfound.study.study import Study

if TYPE_CHECKING:
    import torch

    from radfound.study.region import Box, Plane

PARTS = ("pooled", "texture", "sides", "inner")
TEXTURE_LAYERS: Mapping[int, int] = {4: 24, 10: 32}
"""Inner blocks of the stem whose products are taken, each with the width of its projection."""
_STEM = "vision_model.stem."
_BATCH = 16
# One window for CT in HU: the training pictures are grey figures, most of them of soft tissue.
_WINDOW_HU = (40.0, 400.0)


@dataclass(frozen=True, eq=False)
class Texture:
    """Projection of an inner layer's features.

    Parameters
    ----------
    mean : float array, shape (C,)
    projection : float array, shape (C, K)
        Whitening projection.
    """

    mean: np.ndarray
    projection: np.ndarray


def field_frames(study: Study, region: Box | Plane | None = None, max_frames: int = 16) -> Any:
    """Cut a study into the frames that the heads were fitted to; a `radfound.study.frames.Frames`.

    Parameters
    ----------
    study : Study
    region : Box or Plane, optional
        As `radfound.study.frames.make_frames` takes it.
    max_frames : int
    """
    from radfound.study.frames import FrameConfig, make_frames

    return make_frames(
        study, FrameConfig(max_frames=max_frames, windows_hu=(_WINDOW_HU,) * 3), region
    )


def load_stem(folder: Path) -> Any:
    """Return the stem of a checkpoint of radfound-mini's architecture, in evaluation mode.

    Raises
    ------
    CheckpointError
        If the folder holds no weights, or weights without such a stem.
    """
    from safetensors import safe_open

    from radfound.model.stem import EfficientNetLite0Stem

    path = folder / "model.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{folder.name}: holds no model.safetensors; expected a checkpoint")
    stem = EfficientNetLite0Stem().eval()
    with safe_open(path, "pt") as tensors:
        state = {
            name.removeprefix(_STEM): tensors.get_tensor(name).float()
            for name in tensors.keys()
            if name.startswith(_STEM)
        }
    missing, _ = stem.load_state_dict(state, strict=False)
    if any(not name.endswith("num_batches_tracked") for name in missing):
        raise CheckpointError(
            f"{folder.name}: its vision encoder has no EfficientNet-Lite0 stem, which the field heads need"
        )
    return stem


class FrameFeatures:
    """Computes the features of frames.

    Parameters
    ----------
    stem : EfficientNetLite0Stem
        In evaluation mode; as `load_stem` returns it, or the one of a loaded model.
    textures : sequence of Texture
        One for each of `TEXTURE_LAYERS`.
    """

    def __init__(self, stem: Any, textures: Sequence[Texture]):
        self.stem = stem
        self.textures = tuple(textures)

    def __call__(self, pixels: torch.Tensor) -> dict[str, np.ndarray]:
        """Map frames (F, 3, S, S), grey values in [0, 1], to float32 arrays (F, D), one for each of `PARTS`."""
        import torch

        found: dict[str, list[np.ndarray]] = {name: [] for name in PARTS}
        with torch.inference_mode():
            for chunk in pixels.split(_BATCH):
                last, inner = self.layers(chunk)
                mirrored_last, mirrored_inner = self.layers(chunk.flip(3))
                half = last.shape[-1] // 2
                sides = last[..., :half].mean((2, 3)) - last[..., half:].mean((2, 3))
                pooled = (last.mean((2, 3)) + mirrored_last.mean((2, 3))) / 2
                texture = np.concatenate(
                    [
                        (second_order(a, each) + second_order(b, each)) / 2
                        for a, b, each in zip(inner, mirrored_inner, self.textures, strict=True)
                    ],
                    axis=1,
                )
                found["pooled"].append(pooled.numpy())
                found["texture"].append(texture)
                found["sides"].append(sides.numpy())
                moments = [m for each in inner for m in (each.mean((2, 3)), each.std((2, 3)))]
                found["inner"].append(torch.cat(moments, dim=1).numpy())
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def layers(self, pixels: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the last features (F, C, H, W) of frames and those of `TEXTURE_LAYERS`, in float32."""
        import torch
        import torch.nn.functional as F

        inner = []
        with torch.autocast("cpu", torch.bfloat16):
            features = (pixels * 2.0 - 1.0).contiguous(memory_format=torch.channels_last)
            features = F.relu6(self.stem.first(features))
            for index, block in enumerate(self.stem.blocks):
                features = block(features)
                if index in TEXTURE_LAYERS:
                    inner.append(features.float())
            last = F.relu6(self.stem.last(features))
        return last.float(), inner


def second_order(features: torch.Tensor, texture: Texture) -> np.ndarray:
    """Map features (F, C, H, W) to the signed roots of their projected products and means, shape (F, D)."""
    import torch

    mean = torch.from_numpy(np.asarray(texture.mean, np.float32))
    projection = torch.from_numpy(np.asarray(texture.projection, np.float32))
    points = (features.flatten(2).transpose(1, 2) - mean) @ projection
    products = points.transpose(1, 2) @ points / points.shape[1]
    row, column = torch.triu_indices(*products.shape[1:])
    values = torch.cat([products[:, row, column], points.mean(1)], dim=1)
    return (values.sign() * values.abs().sqrt()).numpy()
