"""The settings of a run, as resolved from the user's options."""

from __future__ import annotations

import dataclasses
import json

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


def test_settings_of_a_configuration_can_be_overridden():
    mnist = dataclasses.replace(load("digits"), name="mnist")
    made = settings.resolve({"config": "mnist-dm-small-0.3", "eps": 0.2, "model": "mlp"}, {"epochs": 50}, mnist)
    assert (made.model, made.eps, made.recipe.method, made.recipe.ramp) == ("mlp", 0.2, "crown-ibp", 30)
    assert settings.Settings.from_data(json.loads(json.dumps(made.as_data()))) == made
    with pytest.raises(ValueError, match=r"mnist-dm-small-0\.3 trains with crown-ibp, not ibp"):
        settings.resolve({"config": "mnist-dm-small-0.3", "method": "ibp"}, {}, mnist)
    for eps in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="eps: wanted a finite radius of at least 0"):
            settings.resolve({"eps": eps}, {}, mnist)
    with pytest.raises(ValueError, match="--method natural trains without one"):
        settings.resolve({"eps": 0.0}, {}, mnist)
