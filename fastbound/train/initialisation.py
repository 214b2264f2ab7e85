"""Named initialisations of a network's weights."""

from __future__ import annotations

from torch import nn


def orthogonal(model: nn.Module) -> None:
    """Orthogonal weights and zero biases in every convolution and linear layer (Gowal et al., 2018, arXiv
    1810.12715)."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            nn.init.orthogonal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


INITIALISATIONS = {"default": lambda model: None, "orthogonal": orthogonal}


def initialise(model: nn.Module, name: str) -> None:
    """Initialises `model` in place; "default" leaves what PyTorch gave it."""
    if name not in INITIALISATIONS:
        raise ValueError(f"init: there is no initialisation {name!r}; known: {', '.join(INITIALISATIONS)}.")
    INITIALISATIONS[name](model)
