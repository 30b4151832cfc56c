"""Models that take one picture, such as LLaVA-Med: the slice in question, or a montage."""

from radfound.engine.recipes.recipe import SOFT_TISSUE, Recipe

SINGLE_PICTURE = Recipe(
    name="single_picture", max_slices=9, ct=SOFT_TISSUE, side=672, square=True, label=None, single=True,
    max_images=4,
)  # fmt: skip
