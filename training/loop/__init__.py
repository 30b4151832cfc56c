"""Optimiser loop on Hugging Face Accelerate, with checkpoints, run log, manifest and weights."""
