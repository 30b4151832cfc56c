"""What to read next."""

from .strategies import strategies

__all__ = ["strategies"]
