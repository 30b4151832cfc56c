"""The three stages of training, one file each, and what they share.

`pretrain`, `align`, `instruct`: read them in this order, each from top to bottom.
"""
