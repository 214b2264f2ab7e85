"""Power iteration of a layer as a linear operator W on one sample: v becomes the unit vector along ``W^T W v``.

W and its adjoint are those of `fastbound.primitives.lipschitz_power`. There is no backward: an iterate is a constant to
autograd.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound.primitives import PRODUCT_DTYPES as DTYPES  # noqa: F401
from fastbound.primitives.convolution import Sizes
from fastbound.primitives.lipschitz_power import adjoint, applied, unit

GRADIENTS = ()


def lipschitz_power_fwd(
    iterate: Tensor,  # [1, I] or [1, C, *size]
    weight: Tensor,  # [O, I] or [O, C / groups, *K]
    iterations: int,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> Tensor:  # [1, I] or [1, C, *size]
    size, window = tuple(iterate.shape[2:]), (stride, padding, dilation, groups)
    for _ in range(iterations):
        iterate = unit(adjoint(applied(iterate, weight, *window), weight, size, *window))
    return iterate


def rounding(
    iterate: Tensor,  # [1, I] or [1, C, *size]
    weight: Tensor,  # [O, I] or [O, C / groups, *K]
    iterations: int,
    *window: Any,
) -> tuple[int, tuple[Tensor]]:
    """The number of rounded operations in an output, and the magnitude of its terms.

    Before its last normalisation, the result z is a chain of products, off by at most gamma(n) m, where m is the chain
    of the absolute values. The unit vector u = z / ||z|| is then off by (m + |u| ||m||) / ||z||. The normalisations in
    between are common factors and cancel.
    """
    size = tuple(iterate.shape[2:])
    z, m = iterate, iterate.abs()
    for _ in range(iterations):
        z = adjoint(applied(z, weight, *window), weight, size, *window)
        m = adjoint(applied(m, weight.abs(), *window), weight.abs(), size, *window)
    norm = torch.linalg.vector_norm(z).clamp(min=torch.finfo(z.dtype).tiny)
    both = weight[0].numel() + weight.shape[0] * weight[0, 0].numel()  # terms of y = W v, and of W^T y
    terms = iterations * (both + 8) + iterate.numel() + 16  # and those of the last norm
    return terms, ((m + z.abs() * (torch.linalg.vector_norm(m) / norm)) / norm,)


def samples(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> list[tuple[str, tuple[Any, ...]]]:
    """Named argument lists of ``lipschitz_power_fwd``."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def linear(outputs: int, inputs: int, iterations: int) -> tuple[Any, ...]:
        tensors = unit(normal(1, inputs)), normal(outputs, inputs)
        return *(t.to(dtype).to(device) for t in tensors), iterations, (), (), (), 1

    def convolution(
        channels: int,
        size: Sizes,
        outputs: int,
        kernel: Sizes,
        iterations: int = 2,
        stride: Sizes = (1, 1),
        padding: Sizes = (0, 0),
        dilation: Sizes = (1, 1),
        groups: int = 1,
    ) -> tuple[Any, ...]:
        tensors = unit(normal(1, channels, *size)), normal(outputs, channels // groups, *kernel)
        return *(t.to(dtype).to(device) for t in tensors), iterations, stride, padding, dilation, groups

    iterate, weight, *rest = linear(3, 4, 2)
    return [
        ("linear", linear(5, 7, 1)),
        ("linear, wide", linear(17, 33, 3)),
        ("linear, single", linear(1, 1, 2)),
        ("linear, without weights", (iterate, torch.zeros_like(weight), *rest)),
        ("plain", convolution(3, (6, 7), 4, (3, 3))),
        ("padded", convolution(4, (6, 5), 8, (3, 3), padding=(1, 1))),
        ("one channel", convolution(1, (8, 8), 2, (4, 4), stride=(2, 2))),
        ("rows left over", convolution(2, (8, 9), 2, (3, 3), stride=(3, 4))),
        ("strided, padded", convolution(5, (9, 8), 3, (4, 3), stride=(2, 3), padding=(1, 2))),
        ("dilated", convolution(2, (9, 9), 3, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(2, 3))),
        ("grouped", convolution(6, (5, 5), 9, (3, 3), padding=(1, 1), groups=3)),
        ("one pixel", convolution(3, (1, 1), 5, (1, 1))),
        ("sequence", convolution(4, (9,), 6, (3,), stride=(2,), padding=(1,), dilation=(2,), groups=2)),
    ]
