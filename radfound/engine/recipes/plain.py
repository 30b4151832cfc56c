"""The recipe for every other model: a few labelled slices in their plane of acquisition."""

from radfound.engine.recipes.recipe import Recipe

PLAIN = Recipe(name="plain", max_slices=8, most_pixels=8 * 512 * 512)
