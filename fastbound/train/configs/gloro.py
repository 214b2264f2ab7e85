"""Globally-robust networks: Leino, Wang & Fredrikson, ICML 2021, arXiv 2102.08452.

Weights follow Glorot's rule, the default of the authors' framework, unless they name another one. Of their CIFAR-10
augmentation only the flips are here (they add colours, rotations, zoom and noise).
"""

from __future__ import annotations

from dataclasses import replace

from fastbound.train.configs.config import Config
from fastbound.train.recipes import GloRoRecipe

SOURCE = "Leino et al., 2021, released configuration"

MNIST_SMALL = GloRoRecipe(
    epochs=500, lr_hold=250, lr_end=1e-6, eps_train=0.45, ramp=0, init="glorot", power_iterations=10, trades_ramp=500
)
MNIST_LARGE = GloRoRecipe(
    epochs=300, lr_hold=150, lr_end=5e-6, eps_train=1.75, ramp=0, init="glorot", power_iterations=10, trades_ramp=300
)
CIFAR = GloRoRecipe(
    epochs=800, lr_hold=400, lr_end=1e-6, eps_train=1.1 * 36 / 255, warmup=20, ramp=380, init="orthogonal", crop=0
)
CIFAR_TRADES = replace(CIFAR, init="glorot", divergence="kl", trades_start=1.2, trades_end=1.2)


def _trades(recipe: GloRoRecipe, end: float) -> GloRoRecipe:
    """Cross-entropy as the divergence, from weight 0."""
    return replace(recipe, divergence="ce", trades_end=end)


CONFIGS: dict[str, Config] = {
    "gloro-mnist-2c2f-0.3": Config("mnist", "gloro-2c2f", 0.3, MNIST_SMALL, SOURCE),
    "gloro-mnist-2c2f-0.3-trades": Config("mnist", "gloro-2c2f", 0.3, _trades(MNIST_SMALL, 2.0), SOURCE),
    "gloro-mnist-4c3f-1.58": Config("mnist", "gloro-4c3f", 1.58, MNIST_LARGE, SOURCE),
    "gloro-mnist-4c3f-1.58-trades": Config("mnist", "gloro-4c3f", 1.58, _trades(MNIST_LARGE, 3.0), SOURCE),
    "gloro-cifar10-6c2f-36-255": Config("cifar10", "gloro-6c2f", 36 / 255, CIFAR, SOURCE),
    "gloro-cifar10-6c2f-36-255-trades": Config("cifar10", "gloro-6c2f", 36 / 255, CIFAR_TRADES, SOURCE),
}
