"""The settings of a run, as they are resolved from what the user gave."""

from __future__ import annotations

import pytest

from fastbound.data import Augmentation, load
from fastbound.train import settings


def test_the_resolved_recipe_has_the_augmentation_of_the_data_set() -> None:
    digits = load("digits")
    recipe = settings.resolve({}, {}, digits).recipe
    assert (recipe.flip, recipe.crop, recipe.crop_mode) == (
        digits.augmentation.flip,
        digits.augmentation.crop,
        digits.augmentation.mode,
    )
    recipe = settings.resolve({}, {"flip": True, "crop": 1}, digits).recipe
    assert (recipe.flip, recipe.crop, recipe.crop_mode) == (True, 1, digits.augmentation.mode)
    made = settings.resolve({}, {"crop": 1, "crop_mode": "zero"}, digits)
    assert made.augmentation == Augmentation(digits.augmentation.flip, 1, "zero")
    with pytest.raises(ValueError, match="crop: wanted a padding"):
        settings.resolve({}, {"crop": -1}, digits)


def test_a_configuration_certified_beyond_its_training_radius_warns() -> None:
    digits = load("digits")
    with pytest.warns(UserWarning, match=r"trains up to eps 0.2 and is certified at the larger 0.5"):
        settings.resolve({"config": "mnist-dm-large-0.1", "dataset": "digits", "eps": 0.5}, {}, digits)
