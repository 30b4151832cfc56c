"""Make torchvision importable beside a torch that its binary does not fit.

The package index has one torchvision, built for CUDA. Beside a CPU torch its binary does not load, and then its import
fails, because it registers fake versions of two operators that the binary would declare; transformers and peft, which
import torchvision where it is installed, fail with it. The image processors use neither operator, so that a
declaration is enough.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

_OPERATORS = ("nms", "qnms")
_KEPT: list[Any] = []  # a Library withdraws its operators when it is collected


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        _declare_operators(Path(self.path).parent)
        super().exec_module(module)


class _Finder:
    """Finds torchvision alone."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def prepare_torchvision() -> None:
    """Let a later import of torchvision succeed; imports neither torch nor torchvision itself."""
    if "torchvision" not in sys.modules and _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def _declare_operators(folder: Path) -> None:
    import torch

    try:
        for binary in folder.glob("_C*.so"):
            torch.ops.load_library(str(binary))
            return
    except OSError:  # built for CUDA, and this torch is not
        pass
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)
