"""SingleProp: Boopathy et al., 2021, arXiv 2102.01208, as their released code trains.

The code gives the network, the learning rate and mostly the kappa schedule of the released models; where the schedule
is missing, kappa is linear here. The learning rate 1e-4 of the CIFAR-10 DM-large model is not in the code's grid.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastbound.train.configs.config import Config
from fastbound.train.recipes import AdaptiveSinglePropRecipe, SinglePropRecipe

SOURCE = "Boopathy et al., 2021, released code"
HELD_OUT = 5000
PADDED = {"same_padding": True}

Kind = type[SinglePropRecipe] | type[AdaptiveSinglePropRecipe]


def _mnist(kind: Kind, model: str, lr: float, options: Mapping[str, object]) -> Config:
    per_epoch = (60000 - HELD_OUT) // 100
    recipe = kind(
        epochs=100,
        batch_size=100,
        lr=lr,
        lr_decay=0.1,
        milestones=(15000 / per_epoch, 25000 / per_epoch),
        warmup=2000 / per_epoch,
        ramp=10000 / per_epoch,
        eps_train=0.3,
        validation=HELD_OUT,
        variant="zero",
    )
    return Config("mnist", model, 0.3, recipe, SOURCE, options)


def _cifar(kind: Kind, model: str, lr: float, options: Mapping[str, object]) -> Config:
    per_epoch = (50000 - HELD_OUT) // 50
    recipe = kind(
        epochs=350,
        batch_size=50,
        lr=lr,
        lr_decay=0.1,
        milestones=(60000 / per_epoch, 90000 / per_epoch),
        warmup=5000 / per_epoch,
        ramp=50000 / per_epoch,
        eps_train=8 / 255,
        validation=HELD_OUT,
        variant="fast-lin",
        flip=False,
        crop=0,
    )
    return Config("cifar10", model, 8 / 255, recipe, SOURCE, options)


CONFIGS: dict[str, Config] = {
    "singleprop-mnist-dm-small-0.3": _mnist(SinglePropRecipe, "dm-small", 5e-4, PADDED),
    "singleprop-mnist-wide-cnn-0.3": _mnist(SinglePropRecipe, "wide-cnn", 1e-3, {}),
    "singleprop-cifar10-dm-large-8-255": _cifar(SinglePropRecipe, "dm-large", 1e-4, {}),
    "singleprop-adaptive-mnist-dm-small-0.3": _mnist(AdaptiveSinglePropRecipe, "dm-small", 5e-4, PADDED),
    "singleprop-adaptive-mnist-dm-medium-0.3": _mnist(AdaptiveSinglePropRecipe, "dm-medium", 1e-3, PADDED),
    "singleprop-adaptive-cifar10-dm-small-8-255": _cifar(AdaptiveSinglePropRecipe, "dm-small", 5e-4, PADDED),
}
