"""The frozen base model of fine-tuning runs, with everything about it that is computed once and kept.

Imports nothing of the folder above: a run (`training.corrections.judge`) uses it.
"""
