"""`lipschitz_power` in Triton: two launches an iteration and one at the end; torch takes five or more an iteration.

Products are IEEE float32 whatever torch's flags say. Vectors go from launch to launch without normalisation; the kernel
that reads one normalises it, W v as well as W^T W v, so that neither overflows nor vanishes unless the norm of W does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from fastbound.errors import BackendError
from fastbound.kernels._configurations import Configuration, card_of, configuration
from fastbound.kernels._maps import dense
from fastbound.kernels._power import conv2d_kernel, linear_kernel, unit_kernel
from fastbound.kernels._support import INTERPRETED, unsupported

__all__ = ["DTYPES", "lipschitz_power_fwd", "unsupported"]

DTYPES = (torch.float32,)

Sizes = tuple[int, ...]


class Scaled(NamedTuple):
    """A vector and the sums of its squares, one for each program: together they represent its unit vector."""

    values: Tensor  # [N]
    squares: Tensor | None  # [parts], float64; None: the values as they are

    @property
    def parts(self) -> int:
        return 0 if self.squares is None else self.squares.numel()


class Window(NamedTuple):
    """Output position i reads, for tap t, the input position k with ``k spread = i step + start + t tap``."""

    step: int
    start: int
    tap: int
    spread: int


Product = Callable[[Scaled], Scaled]


def lipschitz_power_fwd(
    iterate: Tensor,  # [1, I] or [1, C, *size]
    weight: Tensor,  # [O, I] or [O, C / groups, *K]
    iterations: int,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> Tensor:  # [1, I] or [1, C, *size]
    if not weight.numel():
        return torch.zeros_like(iterate)
    applied, adjoint = _products(dense(weight), tuple(iterate.shape[2:]), stride, padding, dilation, groups)
    vector = Scaled(dense(iterate), None)
    for _ in range(iterations):
        vector = adjoint(applied(vector))
    return _unit(vector).view(iterate.shape)


def _products(
    weight: Tensor,  # [O, I] or [O, C / groups, *K], dense
    size: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> tuple[Product, Product]:
    """``W x`` and ``W^T y`` as functions of x and y."""
    if weight.dim() == 2:
        return partial(_linear, weight), partial(_linear, weight.T)
    if weight.dim() == 3:  # maps of one row
        return _products(weight.unsqueeze(2), (1, *size), (1, *stride), (0, *padding), (1, *dilation), groups)
    if weight.dim() == 4:
        grouped = weight.unflatten(0, (groups, -1))  # [G, O / G, C / G, KH, KW]
        dimensions = list(zip(size, weight.shape[2:], stride, padding, dilation))
        out_size = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in dimensions)
        forwards = [Window(s, -p, d, 1) for _, _, s, p, d in dimensions]
        backwards = [Window(1, p, -d, s) for _, _, s, p, d in dimensions]
        return (
            partial(_conv2d, grouped, size, out_size, forwards),
            partial(_conv2d, grouped.transpose(1, 2), out_size, size, backwards),
        )
    raise BackendError(
        "the Triton kernels of lipschitz_power know linear layers and convolutions of 1 or 2 dimensions, not weight "
        f"{tuple(weight.shape)}; leave use_backend('triton'), or name other primitives with only=."
    )


def _linear(
    weight: Tensor,  # [M, K], strided
    x: Scaled,  # of [K]
) -> Scaled:  # of [M]
    features, channels = weight.shape
    chosen = _choice("power_linear", weight, features)
    out = _empty(features, triton.cdiv(features, chosen.block_m), weight)
    with torch.cuda.device_of(weight):
        linear_kernel[(out.parts,)](
            *(*out, *x, weight, x.parts, features, channels, *weight.stride()),
            NORMALISE=x.squares is not None,
            BLOCK_M=chosen.block_m,
            BLOCK_K=chosen.block_k,
            **chosen.options(),
        )
    return out


def _conv2d(
    weight: Tensor,  # [G, M, K, T, U], taps dense
    size: Sizes,  # (Y, X)
    out_size: Sizes,  # (H, W)
    windows: list[Window],  # of rows and columns
    x: Scaled,  # of [G K, Y, X]
) -> Scaled:  # of [G M, H, W]
    groups, features, channels, *taps = weight.shape
    chosen = _choice("power_conv2d", weight, features)
    pixels = out_size[0] * out_size[1]
    blocks = triton.cdiv(features, chosen.block_m) * triton.cdiv(pixels, chosen.block_p)
    out = _empty(groups * features * pixels, groups * blocks, weight)
    with torch.cuda.device_of(weight):
        conv2d_kernel[(blocks, groups)](
            *(*out, *x, weight, x.parts, *out_size, *size, features, channels, taps[0] * taps[1], taps[1]),
            *(number for window in windows for number in window),
            *weight.stride()[:3],
            NORMALISE=x.squares is not None,
            SPREAD=any(window.spread > 1 for window in windows),
            **chosen.tile(),
            **chosen.options(),
        )
    return out


def _unit(x: Scaled) -> Tensor:  # of [N] -> [N]
    size = x.values.numel()
    chosen = _choice("power_linear", x.values, size)
    out = torch.empty_like(x.values)
    with torch.cuda.device_of(out):
        unit_kernel[(triton.cdiv(size, chosen.block_m * chosen.block_k),)](
            *(out, *x, x.parts, size), BLOCK_M=chosen.block_m, BLOCK_K=chosen.block_k, **chosen.options()
        )
    return out


def _choice(kernel: str, like: Tensor, features: int) -> Configuration:
    return configuration(card_of(like.device, INTERPRETED), kernel, "ieee", features)


def _empty(size: int, programs: int, like: Tensor) -> Scaled:
    return Scaled(like.new_empty(size), like.new_empty(programs, dtype=torch.float64))
