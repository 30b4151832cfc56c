"""What fine-tuning on corrections is worth, tried on real data with a simulated reader."""
