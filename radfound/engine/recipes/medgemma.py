"""MedGemma 1 and 1.5: CT in three windows, MR by its range, radiographs with priors.

Google's notebooks in github.com/Google-Health/medgemma; arXiv 2604.05081.
"""

from radfound.engine.recipes.intensity import MinMax, Percentiles, Windows
from radfound.engine.recipes.recipe import Recipe
from radfound.engine.recipes.sampling import ends_of_shares

THINKING = (("<unused94>", "<unused95>"),)

MEDGEMMA = Recipe(
    name="medgemma",
    planes="axial",
    max_slices=85,
    slices=ends_of_shares,
    ct=Windows(((-1024.0, 1024.0), (-135.0, 215.0), (0.0, 80.0))),
    other=MinMax(),
    image=Percentiles(),
    side=896,
    square=True,
    label_after=True,
    instruction="These are consecutive slices of one volume, in order. Review all of them carefully.",
    hidden=THINKING,
)
