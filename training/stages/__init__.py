"""The three stages of training in this order: `pretrain`, `align`, `instruct`.

The first two are one file each, `instruct` is a package that begins in `stage.py`; each is to be read from top to bottom.
`common`, `config`, `grounding` and `objectives` are shared.
"""
