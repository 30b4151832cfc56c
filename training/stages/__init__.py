"""The three stages of training in this order: `pretrain`, `align`, `instruct`.

One file each, to be read from top to bottom; `common`, `config`, `grounding` and `objectives` are shared.
"""
