"""Short warm-up: Shi et al., 2021, arXiv 2103.17268."""

from __future__ import annotations

from fastbound.train.configs.config import Config
from fastbound.train.recipes import ShortWarmupRecipe

NETWORKS = ("cnn7", "wide-resnet", "resnext")
SOURCE = "Shi et al., 2021"

# A network for MNIST is trained at 0.4, whatever the radius at which it is certified.
_MNIST = ShortWarmupRecipe(epochs=70, batch_size=256, milestones=(50, 60), eps_train=0.4, warmup=0, ramp=20)
_CIFAR = ShortWarmupRecipe(
    epochs=160,
    batch_size=128,
    milestones=(120, 140),
    eps_train=8 / 255,
    warmup=1,
    ramp=80,
    flip=True,
    crop=2,
    crop_mode="edge",
)
_CIFAR_SHORT = ShortWarmupRecipe(
    epochs=70,
    batch_size=128,
    milestones=(50, 60),
    eps_train=8 / 255,
    warmup=1,
    ramp=20,
    flip=True,
    crop=2,
    crop_mode="edge",
)
# To save memory the authors split a batch into two halves and add their gradients. Here it is one batch: the same
# gradient, except that BatchNorm takes its statistics from 128 images instead of 64.
_TINY = ShortWarmupRecipe(
    epochs=80,
    batch_size=128,
    milestones=(61, 71),
    eps_train=1 / 255,
    warmup=1,
    ramp=20,
    regularisation=0.2,
    flip=True,
    crop=4,
    crop_mode="edge",
)


def _tiny_imagenet(network: str) -> Config:
    options = {"last_stride": 2} if network == "cnn7" else {}
    return Config("tiny-imagenet", network, 1 / 255, _TINY, SOURCE, options)


CONFIGS: dict[str, Config] = {
    **{
        f"short-warmup-mnist-{network}-{eps}": Config("mnist", network, eps, _MNIST, SOURCE)
        for network in NETWORKS
        for eps in (0.3, 0.4)
    },
    **{
        f"short-warmup-cifar10-{network}-8-255": Config("cifar10", network, 8 / 255, _CIFAR, SOURCE)
        for network in NETWORKS
    },
    **{
        f"short-warmup-cifar10-{network}-8-255-70-epochs": Config("cifar10", network, 8 / 255, _CIFAR_SHORT, SOURCE)
        for network in NETWORKS
    },
    **{f"short-warmup-tiny-imagenet-{network}-1-255": _tiny_imagenet(network) for network in NETWORKS},
}
