"""Numbers that describe a frame: what the convolutions of the encoder's stem see, frozen.

Taken before the layers that the alignment has collapsed to a few labels. Three parts:

- `pooled`: the mean of the last features over the frame and its mirror image;
- `sides`: the last features of the left half of the frame less those of the right half;
- `inner`: mean and standard deviation of the features of four inner layers, which tell how a picture was made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radfound.exceptions import CheckpointError
from radfound.study.study import Study

if TYPE_CHECKING:
    import torch

    from radfound.study.region import Box, Plane

PARTS = ("pooled", "sides", "inner")
INNER_LAYERS = (4, 7, 10, 13)
"""Blocks of the stem whose moments are taken; the alignment froze the first of them."""
_STEM = "vision_model.stem."
_BATCH = 16
# One window for CT in HU: the training pictures are grey figures, most of them of soft tissue.
_WINDOW_HU = (40.0, 400.0)


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
    """

    def __init__(self, stem: Any):
        self.stem = stem

    def __call__(self, pixels: torch.Tensor) -> dict[str, np.ndarray]:
        """Map frames (F, 3, S, S), grey values in [0, 1], to float32 arrays (F, D), one for each of `PARTS`."""
        import torch

        found: dict[str, list[np.ndarray]] = {name: [] for name in PARTS}
        with torch.inference_mode():
            for chunk in pixels.split(_BATCH):
                last, inner = self.layers(chunk)
                mirrored, _ = self.layers(chunk.flip(3))
                half = last.shape[-1] // 2
                sides = last[..., :half].mean((2, 3)) - last[..., half:].mean((2, 3))
                moments = [m for each in inner for m in (each.mean((2, 3)), each.std((2, 3)))]
                found["pooled"].append((last + mirrored).mean((2, 3)).numpy() / 2)
                found["sides"].append(sides.numpy())
                found["inner"].append(torch.cat(moments, dim=1).numpy())
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def layers(self, pixels: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the last features (F, C, H, W) of frames and those of `INNER_LAYERS`, in float32."""
        import torch
        import torch.nn.functional as F

        inner = []
        device = next(self.stem.parameters()).device
        with torch.autocast(device.type, torch.bfloat16):
            features = (pixels.to(device) * 2.0 - 1.0).contiguous(memory_format=torch.channels_last)
            features = F.relu6(self.stem.first(features))
            for index, block in enumerate(self.stem.blocks):
                features = block(features)
                if index in INNER_LAYERS:
                    inner.append(features.float().cpu())
            last = F.relu6(self.stem.last(features))
        return last.float().cpu(), inner
