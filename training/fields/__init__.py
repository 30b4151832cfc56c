"""Fit and measure the field heads of `radfound.fields` on the data kit.

`samples` lists the labelled pictures, `extract` computes their features, `fit` fits and calibrates the heads, `measure` scores
them. `training.stages.fields` runs all of it. Imports `radfound` only.
"""
