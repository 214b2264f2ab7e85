"""Layers as linear operators on one sample, whose spectral norms are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastbound.primitives.convolution import output_size
from fastbound.primitives.lipschitz_power import adjoint, applied


@dataclass(frozen=True, eq=False)
class DenseOperator:
    """``W x`` over the last dimension; the other dimensions do not change the norm."""

    weight: Tensor  # [O, I]

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.weight.shape[1],)

    @property
    def geometry(self) -> tuple[Any, ...]:
        """All that determines the norm in addition to the weight."""
        return ()

    @property
    def window(self) -> tuple[Any, ...]:
        """Stride, padding, dilation and groups."""
        return (), (), (), 1

    def apply(self, x: Tensor) -> Tensor:  # [N, I] -> [N, O]
        return applied(x, self.weight, *self.window)

    def adjoint(self, y: Tensor) -> Tensor:  # [N, O] -> [N, I]
        return adjoint(y, self.weight, (), *self.window)


@dataclass(frozen=True, eq=False)
class ConvolutionOperator:
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
        kernel = tuple(self.weight.shape[2:])
        return (self.weight.shape[0], *output_size(self.size, kernel, self.stride, self.padding, self.dilation))

    @property
    def geometry(self) -> tuple[Any, ...]:
        return self.size, *self.window

    @property
    def window(self) -> tuple[Any, ...]:
        """Stride, padding, dilation and groups."""
        return self.stride, self.padding, self.dilation, self.groups

    def apply(self, x: Tensor) -> Tensor:  # [N, C, *size] -> [N, O, *]
        return applied(x, self.weight, *self.window)

    def adjoint(self, y: Tensor) -> Tensor:  # [N, O, *] -> [N, C, *size]
        return adjoint(y, self.weight, self.size, *self.window)


Operator = DenseOperator | ConvolutionOperator
