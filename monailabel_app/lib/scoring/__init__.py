"""Scoring of unread studies."""

from .radfound import RadFoundScoring

__all__ = ["RadFoundScoring"]
