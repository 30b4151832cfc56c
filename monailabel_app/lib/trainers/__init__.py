"""The trainers that MONAI Label lists."""

from .radfound import RadFoundTrainer

__all__ = ["RadFoundTrainer"]
