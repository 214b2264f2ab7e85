"""Constants of values, from the norms of the layers before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastbound.domains.lipschitz.certificate import UNIT
from fastbound.domains.lipschitz.graph import Addition, Factor, Input, Layer, LipschitzNode
from fastbound.domains.tape import topological


def estimate(node: LipschitzNode) -> Tensor:
    """Training estimate [] of the constant of ``node``, differentiable."""
    value = _combined(node, node.flow.norm, lambda factor: factor)
    return torch.as_tensor(value, dtype=node.dtype, device=node.device)


def certified(node: LipschitzNode) -> float:
    """Upper bound of the constant of ``node``."""
    state = node.flow.state
    value = _combined(node, lambda layer: state.certified_norm(layer.place, layer.operator), _above)
    # All numbers are >= 0, so the error of each operation is at most a few u of its result.
    operations = sum(len(n.inputs) + 1 for n in topological(node))
    return float(value * (1 + 8 * UNIT * operations))


def _above(factor: float | Tensor) -> float:
    """A factor, increased by the rounding of numbers such as 0.1 to the network's dtype."""
    return float(factor) if factor in (0, 1) else float(factor) * (1 + 2.0**-22)


def _combined(node: LipschitzNode, norm: Callable[[Layer], Any], factor: Callable[[float | Tensor], Any]) -> Any:
    """The constant of ``node``, from norms of layers and factors as ``norm`` and ``factor`` return them."""
    constants: dict[int, Any] = {}
    for current in reversed(topological(node)):
        gain, inputs = current.gain, [constants[id(parent)] for parent in current.inputs]
        if isinstance(gain, Input):
            constant: Any = 1.0
        elif isinstance(gain, Layer):
            constant = inputs[0] * norm(gain)
        elif isinstance(gain, Factor):
            constant = inputs[0] * factor(gain.value)
        elif isinstance(gain, Addition):
            constant = sum(inputs)
        else:
            constant = sum(value * value for value in inputs) ** 0.5
        constants[id(current)] = constant
    return constants[id(node)]
