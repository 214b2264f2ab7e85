"""Launches of the two kernels for convolutions of maps with their channels innermost; a linear layer has maps 1 x 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from fastbound.kernels._configurations import Configuration, card_of, configuration
from fastbound.kernels._precision import dot_precision, product_precision
from fastbound.kernels._product import product_kernel
from fastbound.kernels._support import INTERPRETED
from fastbound.kernels._weight_gradient import weight_gradient_kernel

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """The geometry of a convolution; the default is that of a linear layer."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    convolution: bool = True  # which of torch's two precision flags applies

    def output_size(self, size: Pair, kernel: Pair) -> Pair:
        """Height and width of the output for a map of ``size``."""
        each = zip(size, kernel, self.stride, self.padding, self.dilation)
        height, width = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in each)
        return height, width


LINEAR = Geometry(convolution=False)


def convolve(
    stack: Tensor,  # [N, B, Y, X, G K], dense
    radius: Tensor | None,  # [B, Y, X, G K], dense; None: stack alone
    weight: Tensor,  # [G M, T, U, K]
    bias: Tensor | None,  # [G M]
    scale: Tensor | None,  # [B], factor of the bias; None: 1
    geometry: Geometry,
) -> tuple[Tensor, Tensor | None]:  # [N, B, H, W, G M], [B, H, W, G M]
    """``conv(stack, W) + scale bias`` and ``conv(radius, |W|)``."""
    height, width = geometry.output_size((stack.shape[2], stack.shape[3]), (weight.shape[1], weight.shape[2]))
    out = stack.new_empty(*stack.shape[:2], height, width, weight.shape[0])
    out_radius = None if radius is None else out.new_empty(out.shape[1:])
    windows = zip(geometry.stride, (-p for p in geometry.padding), geometry.dilation)
    grouped = weight.unflatten(0, (geometry.groups, -1))
    _product(out, out_radius, None, stack, radius, grouped, bias, scale, None, tuple(windows), geometry)
    return out, out_radius


def convolve_transposed(
    stack: Tensor,  # [N, B, H, W, G M], dense
    radius: Tensor | None,  # [B, H, W, G M], dense; None: stack alone
    weight: Tensor,  # [G M, T, U, K]
    bias: Tensor | None,  # [G M]; None: no constant
    size: Pair,
    geometry: Geometry,
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # [N, B, Y, X, G K], [B, Y, X, G K], [B]
    """The transpose of `convolve` with W and |W| onto maps of ``size``; ``sum stack[0] bias`` for each sample."""
    groups = geometry.groups
    out = stack.new_empty(*stack.shape[:2], *size, weight.shape[3] * groups)
    out_radius = None if radius is None else out.new_empty(out.shape[1:])
    if not out.numel():
        return out, out_radius, None if bias is None else stack[0].sum((1, 2)) @ bias
    constant = None if bias is None else stack.new_empty(stack.shape[1])
    swapped = weight.unflatten(0, (groups, -1)).transpose(1, -1)  # [G, K, T, U, M]
    for a in range(min(geometry.stride[0], size[0])):
        for b in range(min(geometry.stride[1], size[1])):
            residue = (slice(a, None, geometry.stride[0]), slice(b, None, geometry.stride[1]))
            taps, windows = zip(*(_residue(r, d, geometry, weight.shape[d + 1]) for d, r in enumerate((a, b))))
            _product(
                out[:, :, residue[0], residue[1]],
                None if out_radius is None else out_radius[:, residue[0], residue[1]],
                constant if a == b == 0 else None,
                stack,
                radius,
                swapped[:, :, taps[0], taps[1]],
                None,
                None,
                bias,
                windows,
                geometry,
            )
    return out, out_radius, constant


def weight_gradient(
    grad: Tensor,  # [N, B, H, W, G M], dense
    grad_radius: Tensor | None,  # [B, H, W, G M], dense; None: no radius
    stack: Tensor,  # [N, B, Y, X, G K], dense
    radius: Tensor | None,  # [B, Y, X, G K], dense
    weight: Tensor,  # [G M, T, U, K], dense
    geometry: Geometry,
) -> Tensor:  # [G M, T, U, K], float32
    """``sum grad x + sign(W) sum grad_radius radius`` over samples and pixels."""
    (streams, batch, height, width, outputs), (_, _, rows, columns, _) = grad.shape, stack.shape
    features, channels = outputs // geometry.groups, weight.shape[3]
    pixels, taps = batch * height * width, weight.shape[1] * weight.shape[2]
    if not pixels or not weight.numel():
        return torch.zeros_like(weight, dtype=torch.float32)
    name = "rows_weight_gradient" if radius is None else "interval_weight_gradient"
    precision, chosen = _choice(name, stack, features, geometry)
    parts = triton.cdiv(pixels, chosen.part)
    out = torch.empty(parts, *weight.shape, dtype=torch.float32, device=weight.device)
    blocks = triton.cdiv(features, chosen.block_m) * triton.cdiv(channels, chosen.block_k) * taps
    windows = zip(geometry.stride, (-p for p in geometry.padding), geometry.dilation)
    with torch.cuda.device_of(stack):
        weight_gradient_kernel[(blocks, geometry.groups, parts)](
            *(out, grad, grad_radius, stack, radius, weight),
            *(pixels, chosen.part, height, width, rows, columns, features, channels, weight.shape[2]),
            *(number for window in windows for number in window),
            *(out.stride(0), weight[0].numel(), grad.stride(0), outputs, *stack.stride()[:4]),
            STREAMS=streams,
            RADIUS=radius is not None,
            PRECISION=dot_precision(precision),
            INTERPRETED=INTERPRETED,
            **chosen.tile(),
            **chosen.options(),
        )
    return out[0] if parts == 1 else out.sum(0)


def _residue(residue: int, dim: int, geometry: Geometry, kernel: int) -> tuple[slice, tuple[int, int, int]]:
    """Taps that reach the input pixels ``residue`` modulo the stride, and (step, start, tap) of the outputs they read.

    Tap k of output y reaches the input ``y stride - padding + k dilation``. This is solved for y; k takes the steps
    that keep y an integer.
    """
    stride, padding, dilation = geometry.stride[dim], geometry.padding[dim], geometry.dilation[dim]
    every = stride // math.gcd(stride, dilation)
    first = [k for k in range(min(every, kernel)) if (residue + padding - k * dilation) % stride == 0]
    if not first:
        return slice(0, 0), (1, 0, 0)
    start = (residue + padding - first[0] * dilation) // stride
    return slice(first[0], None, every), (1, start, -every * dilation // stride)


def _product(
    out: Tensor,  # [N, B, H, W, G M]
    out_radius: Tensor | None,  # [B, H, W, G M]
    constant: Tensor | None,  # [B]
    stack: Tensor,  # [N, B, Y, X, G K]
    radius: Tensor | None,  # [B, Y, X, G K]
    weight: Tensor,  # [G, M, T, U, K]
    bias: Tensor | None,  # [G M]
    scale: Tensor | None,  # [B]
    map_bias: Tensor | None,  # [G K]
    windows: tuple[tuple[int, int, int], ...],  # (step, start, tap) of rows and columns
    geometry: Geometry,
) -> None:
    streams, batch, height, width, _ = out.shape
    groups, features, row_taps, column_taps, channels = weight.shape
    if not out.numel():
        return
    precision, chosen = _choice("rows_product" if radius is None else "interval_product", stack, features, geometry)
    blocks = triton.cdiv(features, chosen.block_m) * triton.cdiv(batch * height * width, chosen.block_p)
    with torch.cuda.device_of(stack):
        product_kernel[(blocks + (0 if constant is None else batch), groups)](
            *(out, out_radius, constant, stack, radius, weight, bias, scale, map_bias),
            *(batch, height, width, *stack.shape[2:4], features, channels, row_taps * column_taps, column_taps),
            *(number for window in windows for number in window),
            *(*out.stride()[:4], *stack.stride()[:4], *weight.stride()),
            STREAMS=streams,
            RADIUS=radius is not None,
            BIAS=bias is not None,
            SCALED=scale is not None,
            BIAS_SUM=constant is not None,
            PRECISION=dot_precision(precision),
            INTERPRETED=INTERPRETED,
            **chosen.tile(),
            **chosen.options(),
        )


def _choice(kernel: str, x: Tensor, features: int, geometry: Geometry) -> tuple[str, Configuration]:
    precision = product_precision(x.dtype, geometry.convolution)
    card = card_of(x.device, INTERPRETED)
    return precision, configuration(card, kernel, precision, features)
