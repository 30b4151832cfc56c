"""Active learning: the choice of the study to read next."""

from .strategies import strategies

__all__ = ["strategies"]
