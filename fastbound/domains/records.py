"""The records of the tape: each describes a function by the parameters that a backward walk needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from fastbound.primitives import batch_norm
from fastbound.shapes import Function

Pair = tuple[int, int]


class Source(NamedTuple):
    """The input box."""


class Linear(NamedTuple):
    """``x W^T + b`` over the last dimension."""

    weight: Tensor  # [O, I]
    bias: Tensor | None  # [O]
    columns: Tensor | None = None  # [O, H W C]: the weight, reordered for a flattened channels_last map x


class Convolution(NamedTuple):
    """A convolution, or its transpose, with zero padding; ``weight.dim() - 2`` spatial dimensions."""

    weight: Tensor  # [O, C / groups, *K], transposed: [C, O / groups, *K]
    bias: Tensor | None  # [O]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False
    output_padding: tuple[int, ...] = ()

    def geometry(self) -> tuple[Pair, Pair, Pair, int]:
        """Stride, padding, dilation and groups of a convolution over two dimensions."""
        stride, padding, dilation = ((y, x) for y, x in (self.stride, self.padding, self.dilation))
        return stride, padding, dilation, self.groups


class Norm(NamedTuple):
    """Per-channel ``(x - mean) / sqrt(var + eps) * weight + bias`` over dimension 1 of [B, C, *]."""

    mean: Tensor  # [C]
    var: Tensor  # [C], biased
    weight: Tensor | None  # [C]
    bias: Tensor | None  # [C]
    eps: float
    batch_statistics: bool  # mean and var are those of the input's nominal stream, and pass gradients to it

    def affine(self, nominal: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scale and shift [C], differentiable; also by ``nominal`` [B, C, *] if they use its statistics."""
        mean, var = self.mean, self.var
        if self.batch_statistics and nominal is not None and nominal.requires_grad:
            mean, var = batch_norm.statistics(nominal)
        return batch_norm.scale_and_shift(mean, var, self.weight, self.bias, self.eps)


class Elementwise(NamedTuple):
    """A function of each element, with its shape, derivative and other properties."""

    function: Function
    name: str


class MaxPool(NamedTuple):
    """Max-pooling over the last ``len(kernel)`` dimensions."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool


class LogSoftmax(NamedTuple):
    """``x - log sum exp x`` over a dimension other than that of the batch."""

    dim: int


class Reshape(NamedTuple):
    """A reshape that leaves the batch dimension as it is."""


class LinearMap(NamedTuple):
    """A linear function without parameters and with coefficients >= 0, of one or several inputs."""

    function: Callable[..., Tensor]
    name: str
    per_sample: bool = False  # the same function of each sample, so that it also accepts other batch sizes


class Detached(NamedTuple):
    """The same value, detached from gradients."""


class Scale(NamedTuple):
    """Multiplication by a constant that broadcasts against the input."""

    factor: Tensor | float


class Shift(NamedTuple):
    """Addition of a constant that broadcasts against the input."""

    offset: Tensor | float


class Sum(NamedTuple):
    """Sum of all inputs, each times its sign, with broadcasting."""

    signs: tuple[float, ...]


class Opaque(NamedTuple):
    """A function that has a forward rule only."""

    name: str
    where: str  # module path of the call, e.g. " in features.3"


# A record is of one of these kinds; `backward_rule` refuses all others. Relaxations depend on the bounds of their
# inputs, so methods that tighten bounds tighten those.
LinearRecord = Linear | Convolution | Norm | Reshape | LinearMap | Detached | Scale | Shift | Sum
RelaxedRecord = Elementwise | MaxPool | LogSoftmax
Record = Source | LinearRecord | RelaxedRecord | Opaque


def tensors(record: Record) -> Iterator[Tensor]:
    """The tensors that a record depends on: weights, statistics, parameters of a function."""
    yield from (item for item in record if isinstance(item, Tensor))
    if isinstance(record, Elementwise):
        yield from record.function.parameters
