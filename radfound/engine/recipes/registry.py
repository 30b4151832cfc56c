"""The recipes by name, and the choice by a model's type."""

from __future__ import annotations

import re

from radfound.engine.recipes.gemma3 import GEMMA3
from radfound.engine.recipes.hulu_med import HULU_MED
from radfound.engine.recipes.medgemma import MEDGEMMA
from radfound.engine.recipes.plain import PLAIN
from radfound.engine.recipes.qwen_vl import QWEN_VL
from radfound.engine.recipes.recipe import Recipe
from radfound.engine.recipes.single_picture import SINGLE_PICTURE
from radfound.engine.recipes.smolvlm import SMOLVLM
from radfound.exceptions import RequestError

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (MEDGEMMA, GEMMA3, QWEN_VL, HULU_MED, SINGLE_PICTURE, SMOLVLM, PLAIN)
}
"""Name to recipe."""

# The first pattern that fits the model's name, then its type, decides.
_BY_NAME = (
    (r"medgemma", MEDGEMMA),
    (r"hulu[-_]?med", HULU_MED),
    (r"llava[-_]?med", SINGLE_PICTURE),
)
_BY_TYPE = (
    (r"gemma3.*", GEMMA3),
    (r"qwen\d.*vl.*", QWEN_VL),
    (r"hulu.*", HULU_MED),
    (r"llava|llava_mistral|vipllava|blip.*|instructblip|git|fuyu|paligemma", SINGLE_PICTURE),
    (r"smolvlm|idefics[23]", SMOLVLM),
)


def recipe_for(
    recipe: str | None = None, *, model: str = "", model_type: str | None = None
) -> Recipe:
    """Return a recipe by its name, or the one that fits a model.

    Parameters
    ----------
    recipe : str, optional
        A name in `RECIPES`; None chooses by the model.
    model : str
        Name of the model or of its folder, such as "google/medgemma-1.5-4b-it".
    model_type : str, optional
        `model_type` of its configuration, such as "qwen2_5_vl".

    Raises
    ------
    RequestError
        If there is no recipe of that name.
    """
    if recipe is not None:
        if recipe not in RECIPES:
            raise RequestError(f"recipe: found {recipe!r}; expected one of {', '.join(RECIPES)}")
        return RECIPES[recipe]
    for pattern, found in _BY_NAME:
        if re.search(pattern, model, re.IGNORECASE):
            return found
    for pattern, found in _BY_TYPE:
        if re.fullmatch(pattern, model_type or "", re.IGNORECASE):
            return found
    # A server names its model only.
    for pattern, found in (
        (r"qwen.*vl|lingshu", QWEN_VL),
        (r"gemma-?3", GEMMA3),
        (r"smolvlm", SMOLVLM),
    ):
        if model_type is None and re.search(pattern, model, re.IGNORECASE):
            return found
    return PLAIN
