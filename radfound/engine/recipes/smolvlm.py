"""SmolVLM and Idefics 3: the processor would cut one picture into up to 17 tiles; slices are not cut."""

from radfound.engine.recipes.recipe import Recipe

SMOLVLM = Recipe(
    name="smolvlm", max_slices=16, side=512, square=True, processing={"do_image_splitting": False}
)
