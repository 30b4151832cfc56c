"""Trials of what corrections teach before any training; not in the wheel."""
