"""The trainers that MONAI Label lists."""

from .radfound import VISUAL_TOKENS, RadFoundTrainer

__all__ = ["VISUAL_TOKENS", "RadFoundTrainer"]
