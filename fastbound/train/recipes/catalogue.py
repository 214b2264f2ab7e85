"""The training methods by name, the recipe of one run, and recipes as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from fastbound.choices import METHODS
from fastbound.train.recipes.fields import with_tuples
from fastbound.train.recipes.files import RecipeFileError, load_recipe, names_file
from fastbound.train.recipes.ramped import RampedRecipe
from fastbound.train.recipes.recipe import Recipe


def find_method(name: str) -> type[Recipe]:
    """The training method `name`, or the class that ``path/to/file.py:Class`` names.

    Raises ValueError for an unknown name, RecipeFileError for a file that does not contain such a recipe.
    """
    if names_file(name):
        return load_recipe(name)
    if name not in METHODS:
        raise ValueError(
            f"method: there is no training method {name!r}; known: {', '.join(METHODS)}, or path/to/file.py:Class."
        )
    return METHODS[name]


def resolve(recipe: Recipe, eps: float, overrides: Mapping[str, object]) -> Recipe:
    """The recipe of one run: stretched to its number of epochs, changed by `overrides`, with eps_train as a number.

    Raises ValueError for an override that the method does not have, or a time in `overrides` that exceeds the run.
    """
    known = {entry.name for entry in dataclasses.fields(recipe)}
    unknown = sorted(set(overrides) - known)
    if unknown:
        raise ValueError(
            f"{recipe.method} has no option {', '.join(unknown)}; its options: {', '.join(sorted(known))}."
        )
    rest = dict(overrides)
    epochs = rest.pop("epochs", None)
    if epochs is not None:
        if not isinstance(epochs, int) or epochs < 1:
            raise ValueError(f"epochs: wanted a whole number of at least 1, got {epochs}.")
        recipe = recipe.scaled(epochs)
    recipe = dataclasses.replace(recipe, **with_tuples(type(recipe), rest))  # type: ignore[arg-type]
    if isinstance(recipe, RampedRecipe) and recipe.eps_train is None:
        recipe = dataclasses.replace(recipe, eps_train=eps * recipe.eps_factor)
    return recipe


def as_data(recipe: Recipe) -> dict[str, object]:
    """The recipe as JSON-compatible data; `from_data` reads it back."""
    digest = {} if recipe.digest is None else {"sha256": recipe.digest}
    return {"method": recipe.method, **digest, **dataclasses.asdict(recipe)}


def from_data(content: Mapping[str, object]) -> Recipe:
    """The recipe that `as_data` wrote; raises RecipeFileError if the file of its class is gone or has changed."""
    values = dict(content)
    recipe, digest = find_method(str(values.pop("method"))), values.pop("sha256", None)
    if digest != recipe.digest:
        raise RecipeFileError(
            f"method: the file of {recipe.method} has changed since the run began; put the earlier version back, or "
            "start a new run."
        )
    return recipe(**with_tuples(recipe, values))  # type: ignore[arg-type]
