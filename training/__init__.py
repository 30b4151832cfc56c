"""How RadFound learns: alignment, instruction tuning, and fine-tuning on corrections."""
