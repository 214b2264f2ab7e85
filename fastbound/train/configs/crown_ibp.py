"""CROWN-IBP and loss fusion: Zhang et al., 2019, arXiv 1906.06316; Xu et al., 2020, arXiv 2002.12920."""

from __future__ import annotations

from fastbound.train.configs.config import Config
from fastbound.train.recipes import CrownIBPRecipe


def _mnist_small_eps(eps: float) -> Config:
    recipe = CrownIBPRecipe(
        epochs=100,
        batch_size=100,
        lr=1e-3,
        lr_decay=0.1,
        milestones=(25, 42),
        eps_train=0.2,
        warmup=3,
        ramp=17,
        eps_schedule="linear",
    )
    return Config("mnist", "dm-large", eps, recipe, "Zhang et al., 2019, released configuration")


def _mnist_large_eps(eps: float) -> Config:
    recipe = CrownIBPRecipe(
        epochs=200,
        batch_size=256,
        lr=5e-4,
        lr_decay=0.1,
        milestones=(130, 190),
        eps_train=0.4,
        warmup=10,
        ramp=50,
        eps_schedule="linear",
    )
    return Config("mnist", "dm-large", eps, recipe, "Zhang et al., 2019, released configuration")


def _cifar(eps: float, beta_end: float, certify_with: str) -> Config:
    recipe = CrownIBPRecipe(
        epochs=3200,
        batch_size=1024,
        lr=5e-4,
        lr_decay=0.1,
        milestones=(2600, 3040),
        eps_train=1.1 * eps,
        warmup=320,
        ramp=1600,
        kappa_start=0.0,
        kappa_end=0.0,
        beta_end=beta_end,
        certify_with=certify_with,
    )
    return Config("cifar10", "dm-large", eps, recipe, "Zhang et al., 2019, released configuration")


CONFIGS: dict[str, Config] = {
    **{f"mnist-dm-large-{eps}": _mnist_small_eps(eps) for eps in (0.1, 0.2)},
    **{f"mnist-dm-large-{eps}": _mnist_large_eps(eps) for eps in (0.3, 0.4)},
    "cifar10-dm-large-8-255": _cifar(8 / 255, 0.0, "ibp"),
    "cifar10-dm-large-2-255": _cifar(2 / 255, 1.0, "crown-ibp"),
    "mnist-dm-small-0.3": Config(
        "mnist",
        "dm-small",
        0.3,
        CrownIBPRecipe(
            epochs=100,
            batch_size=256,
            lr=5e-4,
            lr_decay=0.5,
            milestones=tuple(range(10, 100, 10)),
            eps_train=0.3,
            warmup=1,
            ramp=60,
            eps_schedule="linear",
            kappa_start=0.0,
            kappa_end=0.0,
        ),
        "Zhang et al., 2019, released configuration (small networks)",
    ),
    "cifar10-dm-small-8-255": Config(
        "cifar10",
        "dm-small",
        8 / 255,
        CrownIBPRecipe(
            epochs=200,
            batch_size=128,
            lr=1e-3,
            milestones=(),
            eps_train=8 / 255,
            warmup=10,
            ramp=120,
            eps_schedule="linear",
            kappa_start=0.0,
            kappa_end=0.0,
            clip_box=False,
        ),
        "Zhang et al., 2019, released configuration (small networks)",
    ),
    "cifar10-cnn7-8-255-fused": Config(
        "cifar10",
        "cnn7",
        8 / 255,
        CrownIBPRecipe(
            epochs=2000,
            batch_size=256,
            lr=5e-4,
            lr_decay=0.1,
            milestones=(1400, 1700),
            eps_train=8.8 / 255,
            warmup=100,
            ramp=801,
            mid=0.4,
            clip_norm=8.0,
            kappa_start=0.0,
            kappa_end=0.0,
            fuse_loss=True,
            crop=4,
            crop_mode="edge",
        ),
        "Xu et al., 2020",
    ),
}
