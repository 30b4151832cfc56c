"""Public radiology data, read in the layouts that their publishers give them, as `Example` objects."""

from radfound.datasets.example import Example, Turn
from radfound.datasets.kit import Kit

__all__ = ["Example", "Kit", "Turn"]
