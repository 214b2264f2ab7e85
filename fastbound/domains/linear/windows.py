"""Geometry of windows: strides, paddings and kernels with one number per dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.location import module_path
from fastbound.domains.value import Value

V = TypeVar("V", bound=Value)


def per_dimension(value: int | Sequence[int], length: int) -> tuple[int, ...]:
    """``value`` as ``length`` numbers; a single one is repeated. Raises ValueError for any other count."""
    values = (value,) if isinstance(value, int) else tuple(value)
    if len(values) not in (1, length):
        raise ValueError(f"convolution or pooling{module_path()}: wanted one number or {length}, got {values}.")
    return values * length if len(values) == 1 else values


def pooling_stride(stride: int | Sequence[int] | None, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """The stride of a pooling; by default its kernel, so that windows do not overlap."""
    return kernel if stride is None or stride == [] else per_dimension(stride, len(kernel))


def require_dim(name: str, input: Value, dim: int) -> None:
    """Raises ValueError unless ``input`` has ``dim`` dimensions, the first of them the batch."""
    if input.dim() != dim:
        raise ValueError(f"{name}{module_path()}: wanted a batch of {dim} dimensions, got shape {tuple(input.shape)}.")


def convolution_window(
    name: str,
    spatial: int,
    input: V,
    weight: Tensor,
    stride: int | Sequence[int],
    padding: int | Sequence[int] | str,
    dilation: int | Sequence[int],
) -> tuple[V, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The input of a convolution, padded if numbers cannot say how, with stride, padding and dilation per dimension.

    Raises ValueError unless the input is a batch of channels of ``spatial`` dimensions.
    """
    require_dim(name, input, spatial + 2)
    stride, dilation = per_dimension(stride, spatial), per_dimension(dilation, spatial)
    input, padding = numeric_padding(input, weight, padding, dilation)
    return input, stride, padding, dilation


def numeric_padding(
    input: V, weight: Tensor, padding: int | Sequence[int] | str, dilation: tuple[int, ...]
) -> tuple[V, tuple[int, ...]]:
    """The input and its padding as numbers; if 'same' is not symmetric, the input is padded here by `F.pad`."""
    spatial = weight.dim() - 2
    if not isinstance(padding, str):
        return input, per_dimension(padding, spatial)
    if padding == "valid":
        return input, (0,) * spatial
    totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if all(total % 2 == 0 for total in totals):
        return input, tuple(total // 2 for total in totals)
    ends = [end for total in reversed(totals) for end in (total // 2, total - total // 2)]
    return F.pad(input, ends), (0,) * spatial  # type: ignore[arg-type, return-value]
