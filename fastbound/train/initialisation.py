"""Named initialisations of a network's weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastbound.certify.modes import evaluation_mode
from fastbound.choices import INITIALISATIONS
from fastbound.domains.interval.box import linf_box
from fastbound.domains.records import Convolution, Elementwise, Linear, Reshape, Sum
from fastbound.domains.tape import Node, topological
from fastbound.shapes import Hinge


def default(model: nn.Module, x: Tensor) -> None:
    """Keeps PyTorch's own initialisation."""


def orthogonal(model: nn.Module, x: Tensor) -> None:
    """Orthogonal weights and zero biases in every convolution and linear layer (Gowal et al., 2018, arXiv
    1810.12715)."""
    _set_layers(model, nn.init.orthogonal_)


def glorot(model: nn.Module, x: Tensor) -> None:
    """Glorot's uniform weights and zero biases in every convolution and linear layer, Keras's default (Glorot & Bengio,
    2010)."""
    _set_layers(model, nn.init.xavier_uniform_)


def lecun_normal(model: nn.Module, x: Tensor) -> None:
    """Weights from N(0, 1 / fan_in) and zero biases in every convolution and linear layer (LeCun et al., 1998; Boopathy
    et al., 2021, arXiv 2102.01208)."""
    _set_layers(model, lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="linear"))


def ibp(model: nn.Module, x: Tensor) -> None:  # x [B, ...]
    """Weights from N(0, 2 pi / n^2), n the fan-in: interval widths keep their size from layer to layer.

    A layer after a ReLU multiplies the mean width by (n / 2) E|W|, which such weights make exactly 1 (Xavier's:
    sqrt(n) / 4). The classification layer, biases and BatchNorm stay as they are. A layer that reads relu(a + b),
    flattened or not, gets weights half as large, because the widths of two branches add up there.

    Raises ValueError for a weight that is computed from other parameters. Source: Shi et al., 2021, arXiv 2103.17268.
    """
    layers = [
        (node.record, _reads_relu_of_sum(node))
        for node in _computation(model, x)
        if isinstance(node.record, Linear | Convolution)
    ]
    halved = {id(record.weight): record.weight for record, reads_sum in layers if reads_sum}
    with torch.no_grad():
        for record, _ in layers[1:]:  # from output to input: the first is the classification layer
            _require_parameter(record.weight)
            record.weight.normal_(std=math.sqrt(2 * math.pi) / _fan_in(record))
        for weight in halved.values():
            weight.mul_(0.5)


def _set_layers(model: nn.Module, set_weight: Callable[[Tensor], Tensor]) -> None:
    """Weights by `set_weight` and zero biases in every convolution and linear layer."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            set_weight(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _computation(model: nn.Module, x: Tensor) -> list[Node]:
    """The nodes of the model's computation on `x`, from output to input; BatchNorm statistics stay as they are."""
    with evaluation_mode(model), torch.no_grad():
        return topological(model(linf_box(x, 0.0, nominal=False)).node)


def _fan_in(record: Linear | Convolution) -> float:
    """The number of inputs that an output adds up."""
    if isinstance(record, Convolution) and record.transposed:
        return record.weight.shape[0] / record.groups * record.weight[0, 0].numel() / math.prod(record.stride)
    return record.weight[0].numel()


def _require_parameter(weight: Tensor) -> None:
    if not isinstance(weight, nn.Parameter) and not isinstance(weight._base, nn.Parameter):
        raise ValueError(
            f"init: ibp sets weights, and the one of shape {list(weight.shape)} is computed from other parameters "
            "(weight_norm, a parametrization); use another initialisation."
        )


def _reads_relu_of_sum(node: Node) -> bool:
    (source,) = node.inputs
    while isinstance(source.record, Reshape):
        (source,) = source.inputs
    record = source.record
    is_relu = isinstance(record, Elementwise) and isinstance(record.function.shape, Hinge)
    return is_relu and isinstance(source.inputs[0].record, Sum)


def initialise(model: nn.Module, name: str, x: Tensor) -> None:
    """Initialises `model` in place, for inputs like `x` [B, ...]; "default" keeps PyTorch's own weights."""
    if name not in INITIALISATIONS:
        raise ValueError(f"init: there is no initialisation {name!r}; known: {', '.join(INITIALISATIONS)}.")
    INITIALISATIONS[name](model, x)
