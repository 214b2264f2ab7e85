"""CC-IBP, MTL-IBP and Exp-IBP: De Palma et al., 2024, arXiv 2305.13991."""

from __future__ import annotations

from dataclasses import replace

from fastbound.train.configs.config import Config
from fastbound.train.recipes import CCIBPRecipe, ExpIBPRecipe, ExpressiveRecipe, MTLIBPRecipe

SOURCE = "De Palma et al., 2024, released configuration"
OURS = "no published coefficient; alpha 0.5 is fastbound's choice"


def _mnist(eps: float, eps_factor: float, recipe: ExpressiveRecipe, source: str = SOURCE) -> Config:
    recipe = replace(
        recipe,
        epochs=70,
        batch_size=256,
        lr=5e-4,
        milestones=(50, 60),
        eps_train=eps_factor * eps,
        warmup=0,
        ramp=20,
        init="ibp",
        regularisation=0.5,
        clip_norm=10.0,
    )
    return Config("mnist", "cnn7", eps, recipe, source)


def _cifar(eps: float, epochs: int, milestones: tuple[float, ...], recipe: ExpressiveRecipe) -> Config:
    recipe = replace(
        recipe,
        epochs=epochs,
        batch_size=128,
        lr=5e-4,
        milestones=milestones,
        eps_train=eps,
        warmup=1,
        ramp=80,
        init="ibp",
        regularisation=0.5,
        clip_norm=10.0,
        crop=2,
        crop_mode="edge",
    )
    return Config("cifar10", "cnn7", eps, recipe, SOURCE)


def _cifar_2(recipe: ExpressiveRecipe) -> Config:
    # A longer attack on a larger box; interval bounds certify next to nothing of the network.
    attack = replace(recipe, attack_steps=8, attack_step=0.25, attack_factor=2.1, certify_with="crown-ibp")
    return _cifar(2 / 255, 160, (120, 140), attack)


def _cifar_8(recipe: ExpressiveRecipe) -> Config:
    return _cifar(8 / 255, 260, (180, 220), recipe)


def _tiny_imagenet(recipe: ExpressiveRecipe) -> Config:
    recipe = replace(
        recipe,
        epochs=160,
        batch_size=128,
        lr=5e-4,
        milestones=(120, 140),
        eps_train=1 / 255,
        warmup=1,
        ramp=80,
        init="ibp",
        regularisation=0.2,
        clip_norm=10.0,
        flip=True,
        crop=4,
        crop_mode="edge",
    )
    return Config("tiny-imagenet", "cnn7", 1 / 255, recipe, SOURCE, {"last_stride": 2})


CONFIGS: dict[str, Config] = {
    "mnist-cc-ibp-0.1": _mnist(0.1, 2.0, CCIBPRecipe(alpha=0.1, l1=2e-6)),
    "mnist-cc-ibp-0.3": _mnist(0.3, 1.334, CCIBPRecipe(alpha=0.3, l1=3e-6)),
    "mnist-mtl-ibp-0.1": _mnist(0.1, 2.0, MTLIBPRecipe(alpha=0.01, l1=1e-5)),
    "mnist-mtl-ibp-0.3": _mnist(0.3, 1.334, MTLIBPRecipe(alpha=0.08, l1=1e-6)),
    "cifar10-cc-ibp-2-255": _cifar_2(CCIBPRecipe(alpha=0.01, l1=3e-6)),
    "cifar10-cc-ibp-8-255": _cifar_8(CCIBPRecipe(alpha=0.5)),
    "cifar10-mtl-ibp-2-255": _cifar_2(MTLIBPRecipe(alpha=0.004, l1=3e-6)),
    "cifar10-mtl-ibp-8-255": _cifar_8(MTLIBPRecipe(alpha=0.5, l1=1e-7)),
    "cifar10-exp-ibp-2-255": _cifar_2(ExpIBPRecipe(alpha=0.095, l1=4e-6)),
    "cifar10-exp-ibp-8-255": _cifar_8(ExpIBPRecipe(alpha=0.5)),
    "tiny-imagenet-cc-ibp-1-255": _tiny_imagenet(CCIBPRecipe(alpha=0.01, l1=5e-5)),
    "tiny-imagenet-mtl-ibp-1-255": _tiny_imagenet(MTLIBPRecipe(alpha=0.01, l1=5e-5)),
    "tiny-imagenet-exp-ibp-1-255": _tiny_imagenet(ExpIBPRecipe(alpha=0.04, l1=5e-5)),
    "mnist-exp-ibp-0.1": _mnist(0.1, 2.0, ExpIBPRecipe(alpha=0.5), OURS),
    "mnist-exp-ibp-0.3": _mnist(0.3, 1.334, ExpIBPRecipe(alpha=0.5), OURS),
}
