"""How a study is shown to each family of models: slices, intensities, labels, and what to hide of the answer.

A family is a file with its `Recipe`; `registry` chooses by the model's type or by name. Imports `radfound.study`
and numpy; no torch.
"""

from radfound.engine.recipes.recipe import Recipe
from radfound.engine.recipes.registry import RECIPES, recipe_for

__all__ = ["RECIPES", "Recipe", "recipe_for"]
