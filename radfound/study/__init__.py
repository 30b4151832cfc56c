"""A study in memory: images with geometry, regions, slices, frames, intensities, evidence maps.

This package knows neither file formats nor models.
"""
