"""Gemma 3: pictures of a fixed 256 tokens; the processor makes them 896 x 896."""

from radfound.engine.recipes.medgemma import THINKING
from radfound.engine.recipes.recipe import Recipe

GEMMA3 = Recipe(name="gemma3", max_slices=32, side=896, square=True, hidden=THINKING)
