"""The models that MONAI Label lists."""

from .radfound import MODELS, RadFoundInfer

__all__ = ["MODELS", "RadFoundInfer"]
