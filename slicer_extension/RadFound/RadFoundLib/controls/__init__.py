"""Helpers for Qt widgets, and the keys of the panel; may import the translation only."""
