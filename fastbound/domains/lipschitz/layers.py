"""Layers with weights: linear layers and convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.linear.windows import convolution_window
from fastbound.domains.lipschitz.graph import Layer, LipschitzNode
from fastbound.domains.lipschitz.operators import ConvolutionOperator, DenseOperator, Operator
from fastbound.domains.lipschitz.value import Lipschitz
from fastbound.domains.location import module_path
from fastbound.domains.rules import rule
from fastbound.primitives.convolution import as_kernel, as_map
from fastbound.primitives.lipschitz_power import CONVOLUTIONS


@rule(Lipschitz, F.linear)
def linear(input: Lipschitz, weight: Tensor, bias: Tensor | None = None) -> Lipschitz:
    _require_layer("linear", input, weight, bias)
    if input.dim() < 2:
        raise ValueError(f"linear{module_path()}: wanted a batch [B, ..., I], got shape {tuple(input.shape)}.")
    return _layer(input, DenseOperator(weight), F.linear(input.nominal, weight, bias))


def _convolution(spatial: int) -> Callable[..., Lipschitz]:
    function, _ = CONVOLUTIONS[spatial]

    def convolution(
        input: Lipschitz,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Lipschitz:
        name = f"conv{spatial}d"
        _require_layer(name, input, weight, bias)
        input, stride, padding, dilation = convolution_window(name, spatial, input, weight, stride, padding, dilation)
        nominal = function(
            as_map(input.nominal, weight.dim() - 2), as_kernel(weight), bias, stride, padding, dilation, groups
        )
        operator = ConvolutionOperator(weight, tuple(input.shape[2:]), stride, padding, dilation, groups)
        return _layer(input, operator, nominal)

    return convolution


for _spatial, (_function, _) in CONVOLUTIONS.items():
    rule(Lipschitz, _function)(_convolution(_spatial))


def _layer(input: Lipschitz, operator: Operator, nominal: Tensor) -> Lipschitz:
    flow = input.node.flow
    flow.operators.append(operator)
    return input.handle(LipschitzNode(nominal, Layer(operator, len(flow.operators) - 1), (input.node,), flow))


def _require_layer(name: str, input: Any, weight: Any, bias: Any) -> None:
    if not isinstance(input, Lipschitz) or isinstance(weight, Lipschitz) or isinstance(bias, Lipschitz):
        raise NotImplementedError(f"{name}{module_path()}: wanted an abstract input, constant weight and bias.")
    if weight.dtype != input.dtype and not torch.is_autocast_enabled(input.device.type):
        raise TypeError(f"{name}{module_path()}: the input is {input.dtype}, the weight {weight.dtype}; convert one.")
