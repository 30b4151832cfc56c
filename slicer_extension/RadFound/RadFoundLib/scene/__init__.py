"""Slicer's scene: volumes, regions, evidence maps, and a volume as a file."""
