"""Experiments behind the numbers in the documents. Not part of the wheel."""
