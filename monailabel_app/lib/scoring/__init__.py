"""What is measured about studies before anyone reads them."""

from .radfound import RadFoundScoring

__all__ = ["RadFoundScoring"]
