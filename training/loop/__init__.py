"""The one optimiser loop, on Hugging Face Accelerate: checkpoints, run log, manifest, weights."""
