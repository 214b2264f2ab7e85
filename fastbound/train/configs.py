"""Published configurations by name (``--config``): data, network, radius and recipe as their authors released them."""

from __future__ import annotations

from dataclasses import dataclass

from fastbound.train.recipes import IBP, CrownIBP, Recipe


@dataclass(frozen=True)
class Config:
    """A published configuration: data set, network, the radius it is certified at, the recipe, and where it is
    written."""

    dataset: str
    model: str
    eps: float
    recipe: Recipe
    source: str


def _crown_mnist_small_eps(eps: float) -> Config:
    recipe = CrownIBP(
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


def _crown_mnist_large_eps(eps: float) -> Config:
    recipe = CrownIBP(
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


def _crown_cifar(eps: float, beta_end: float, certify_with: str) -> Config:
    recipe = CrownIBP(
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


def _ibp_mnist(eps: float) -> Config:
    # 60,000 steps of 200 images: 2,000 at eps 0, a ramp of 10,000, decays at 15,000 and 25,000.
    recipe = IBP(
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


def _ibp_cifar(eps: float) -> Config:
    # 350 epochs of 1,000 steps: 5,000 at eps 0, a ramp of 50,000, decays at 60,000 and 90,000.
    recipe = IBP(
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
    **{f"mnist-dm-large-{eps}": _crown_mnist_small_eps(eps) for eps in (0.1, 0.2)},
    **{f"mnist-dm-large-{eps}": _crown_mnist_large_eps(eps) for eps in (0.3, 0.4)},
    "cifar10-dm-large-8-255": _crown_cifar(8 / 255, 0.0, "ibp"),
    "cifar10-dm-large-2-255": _crown_cifar(2 / 255, 1.0, "crown-ibp"),
    "mnist-dm-small-0.3": Config(
        "mnist",
        "dm-small",
        0.3,
        CrownIBP(
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
        CrownIBP(
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
        CrownIBP(
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
    **{f"ibp-mnist-dm-large-{eps}": _ibp_mnist(eps) for eps in (0.1, 0.2, 0.3, 0.4)},
    "ibp-cifar10-dm-large-8-255": _ibp_cifar(8 / 255),
    "ibp-cifar10-dm-large-2-255": _ibp_cifar(2 / 255),
}


def find_config(name: str) -> Config:
    if name not in CONFIGS:
        raise ValueError(f"config: there is no published configuration {name!r}; known: {', '.join(CONFIGS)}.")
    return CONFIGS[name]
