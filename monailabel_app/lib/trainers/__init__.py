"""The trainers that MONAI Label lists, and the state of the newest training."""

from .radfound import RadFoundTrainer
from .state import TrainingState

__all__ = ["RadFoundTrainer", "TrainingState"]
