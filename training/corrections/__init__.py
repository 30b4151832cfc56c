"""From the log of corrections to a published adapter: lessons, fine-tuning, plausibility, the gate."""
