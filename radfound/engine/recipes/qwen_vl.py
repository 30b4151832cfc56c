"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and models made from them, such as Lingshu.

The cost of a picture grows with its area: 28 x 28 (Qwen3: 32 x 32) pixels are one token. Slices are given as
pictures with labels and not as a video, whose frames the processor would take for 24 a second.
"""

from radfound.engine.recipes.recipe import Recipe

QWEN_VL = Recipe(name="qwen_vl", max_slices=32, most_pixels=32 * 448 * 448)
