"""What to read next."""

from .strategies import First, Random

__all__ = ["First", "Random"]
