"""A study in memory: images with geometry, regions, slices, frames, intensities, evidence maps.

This package loads no files and knows no models.
"""
