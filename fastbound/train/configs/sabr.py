"""SABR: Mueller et al., 2023, arXiv 2210.04871."""

from __future__ import annotations

from fastbound.train.configs.config import Config
from fastbound.train.recipes import SABRRecipe

SOURCE = "Mueller et al., 2023, released configuration"


def _mnist(eps: float, box_ratio: float, l1: float) -> Config:
    recipe = SABRRecipe(
        epochs=70,
        batch_size=256,
        lr=5e-4,
        milestones=(50, 60),
        eps_train=eps,
        warmup=1,
        ramp=20,
        init="ibp",
        regularisation=0.5,
        box_ratio=box_ratio,
        l1=l1,
    )
    return Config("mnist", "cnn7", eps, recipe, SOURCE)


# Interval bounds certify next to nothing of a network trained on small boxes.
_CIFAR_2 = SABRRecipe(
    epochs=160,
    batch_size=128,
    lr=5e-4,
    milestones=(120, 140),
    eps_train=2 / 255,
    warmup=1,
    ramp=80,
    init="ibp",
    regularisation=0.5,
    crop=2,
    crop_mode="edge",
    box_ratio=0.1,
    relu_shrink=0.4,
    l1=1e-6,
    certify_with="crown-ibp",
)

_CIFAR_8 = SABRRecipe(
    epochs=180,
    batch_size=128,
    lr=5e-4,
    milestones=(140, 160),
    eps_train=8 / 255,
    warmup=1,
    ramp=80,
    init="ibp",
    regularisation=0.5,
    crop=2,
    crop_mode="edge",
    box_ratio=0.7,
)

CONFIGS: dict[str, Config] = {
    "mnist-sabr-0.1": _mnist(0.1, box_ratio=0.4, l1=1e-5),
    "mnist-sabr-0.3": _mnist(0.3, box_ratio=0.6, l1=1e-6),
    "cifar10-sabr-2-255": Config("cifar10", "cnn7", 2 / 255, _CIFAR_2, SOURCE),
    "cifar10-sabr-8-255": Config("cifar10", "cnn7", 8 / 255, _CIFAR_8, SOURCE),
}
