"""IBP: Gowal et al., 2018, arXiv 1810.12715."""

from __future__ import annotations

from fastbound.train.configs.config import Config
from fastbound.train.recipes import IBPRecipe


def _mnist(eps: float) -> Config:
    # 60,000 steps of 200 images: 2,000 at eps 0, a ramp of 10,000, decays at 15,000 and 25,000.
    recipe = IBPRecipe(
        epochs=200,
        batch_size=200,
        lr=1e-3,
        lr_decay=0.1,
        milestones=(50, 250 / 3),
        eps_train=1.1 * eps,
        warmup=20 / 3,
        ramp=100 / 3,
        eps_schedule="linear",
        init="orthogonal",
    )
    return Config("mnist", "dm-large", eps, recipe, "Gowal et al., 2018")


def _cifar(eps: float) -> Config:
    # 350 epochs of 1,000 steps: 5,000 at eps 0, a ramp of 50,000, decays at 60,000 and 90,000.
    recipe = IBPRecipe(
        epochs=350,
        batch_size=50,
        lr=1e-3,
        lr_decay=0.1,
        milestones=(60, 90),
        eps_train=1.1 * eps,
        warmup=5,
        ramp=50,
        eps_schedule="linear",
        init="orthogonal",
    )
    return Config("cifar10", "dm-large", eps, recipe, "Gowal et al., 2018")


CONFIGS: dict[str, Config] = {
    **{f"ibp-mnist-dm-large-{eps}": _mnist(eps) for eps in (0.1, 0.2, 0.3, 0.4)},
    "ibp-cifar10-dm-large-8-255": _cifar(8 / 255),
    "ibp-cifar10-dm-large-2-255": _cifar(2 / 255),
}
