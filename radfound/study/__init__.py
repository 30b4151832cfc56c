"""A study in memory: images and where they lie, regions, slices, frames, grey values, evidence maps.

Imports numpy and `radfound.exceptions` only: what is here knows neither files nor models.
"""
