"""Layers as linear operators between spaces of one sample: what a spectral norm is the norm of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

CONVOLUTIONS: dict[int, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    1: (F.conv1d, F.conv_transpose1d),
    2: (F.conv2d, F.conv_transpose2d),
    3: (F.conv3d, F.conv_transpose3d),
}


@dataclass(frozen=True, eq=False)
class Dense:
    """``W x`` over the last dimension; its other dimensions leave the norm what it is."""

    weight: Tensor  # [O, I]

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.weight.shape[1],)

    @property
    def geometry(self) -> tuple[Any, ...]:
        """What beside the weight decides the norm."""
        return ()

    def apply(self, x: Tensor) -> Tensor:  # [N, I] -> [N, O]
        return x @ self.weight.T

    def adjoint(self, y: Tensor) -> Tensor:  # [N, O] -> [N, I]
        return y @ self.weight


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution with zero padding on maps of one size, without its bias; ``len(size)`` spatial dimensions."""

    weight: Tensor  # [O, C / groups, *K]
    size: tuple[int, ...]  # of the input map
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def input_shape(self) -> tuple[int, ...]:  # (C, *size)
        return (self.weight.shape[1] * self.groups, *self.size)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.weight.shape[0], *((room // s) + 1 for room, s in zip(self._room(), self.stride, strict=True)))

    @property
    def geometry(self) -> tuple[Any, ...]:
        return self.size, self.stride, self.padding, self.dilation, self.groups

    def apply(self, x: Tensor) -> Tensor:  # [N, C, *size] -> [N, O, *]
        function, _ = CONVOLUTIONS[len(self.size)]
        return function(x, self.weight, None, self.stride, self.padding, self.dilation, self.groups)

    def adjoint(self, y: Tensor) -> Tensor:  # [N, O, *] -> [N, C, *size]
        _, function = CONVOLUTIONS[len(self.size)]
        left_over = tuple(room % s for room, s in zip(self._room(), self.stride, strict=True))
        return function(y, self.weight, None, self.stride, self.padding, left_over, self.groups, self.dilation)

    def _room(self) -> tuple[int, ...]:
        """How far the window can move in the padded map, in pixels."""
        sides = zip(self.size, self.weight.shape[2:], self.padding, self.dilation, strict=True)
        return tuple(n + 2 * p - d * (k - 1) - 1 for n, k, p, d in sides)


Operator = Dense | Convolution
