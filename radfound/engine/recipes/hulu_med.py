"""Hulu-Med: each slice by its own range, as it lies in a NIfTI file.

`slice_nifti_to_images` in github.com/ZJUI-AI4H/Hulu-Med; its weights need custom code, so that they run behind
an OpenAI-compatible server only.
"""

from radfound.engine.recipes.intensity import MinMax
from radfound.engine.recipes.recipe import Recipe
from radfound.engine.recipes.sampling import first_to_last

_EACH_SLICE = MinMax(each_slice=True, truncate=True)

HULU_MED = Recipe(
    name="hulu_med",
    planes="stored",
    max_slices=180,
    slices=first_to_last,
    ct=_EACH_SLICE,
    other=_EACH_SLICE,
    label=None,
    instruction="This is a medical 3D scenario.",
)
