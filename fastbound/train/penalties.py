"""L1 penalties. Published code defines them in different ways, so a coefficient is only valid with its definition."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def l1_of_weights(model: nn.Module) -> Tensor:
    """Sum of the absolute weights of linear layers and convolutions (expressive losses)."""
    layers = (module for module in model.modules() if isinstance(module, nn.Linear | nn.modules.conv._ConvNd))
    return _total(layer.weight.abs().sum() for layer in layers)


def l1_of_parameters(model: nn.Module) -> Tensor:
    """Sum of the absolute values of all parameters, biases and BatchNorm included (SABR)."""
    return _total(parameter.abs().sum() for parameter in model.parameters())


def _total(sums: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(sums)).sum()
