"""One backward step of linear bounds through a (leaky) ReLU and the affine map before it.

A lower bound ``rows . relu(z)`` with z in [l, u] takes the lower line if a coefficient is >= 0 and the upper line
if it is negative (Zhang et al., 2018, arXiv 1811.00866; CROWN-IBP: Zhang et al., 2020, arXiv 1906.06316). The lines
are those of `fastbound.primitives.crown_relu`; t is the intercept of the upper one.

The affine map is ``z = scale x + shift`` per channel (BatchNorm) for x in (center, radius). The result is a function of
x: ``rows' = scale rows k`` and a bias ``sum min(rows, 0) t + rows k offset``, where k is the slope of the line taken.
``offset`` is ``shift`` plus any other constant of the channel, such as ``scale`` times the bias of the convolution that
computed x.

The gradient needs the rows again. The next step of the bound keeps ``rows'`` for its own gradient anyway, so without a
scale this one divides ``rows'`` by the slope taken: one tensor is kept instead of two. If that slope is 0, the gradient
does not depend on the row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound.primitives import Gradients
from fastbound.primitives.crown_relu import lines, reads_output

OUTPUTS = ("out_rows", "out_bias")


def crown_relu_fwd(
    rows: Tensor,  # [B, S, C, *]
    center: Tensor,  # [B, C, *]
    radius: Tensor,  # [B, C, *]
    scale: Tensor | None,  # [C], None: 1
    shift: Tensor | None,  # [C], None: 0
    offset: Tensor | None,  # [C], None: 0
    slope: float,
    relaxation: str,
) -> tuple[Tensor, Tensor]:  # [B, S, C, *], [B, S]
    scale, shift, offset = (_channels(v, center.dim()) for v in (scale, shift, offset))
    lower, upper, intercept = lines(*_affine(center, radius, scale, shift), slope, relaxation)
    negative = rows < 0
    inner = rows * torch.where(negative, upper.unsqueeze(1), lower.unsqueeze(1))
    bias = torch.where(negative, rows, 0.0) * intercept.unsqueeze(1)
    if offset is not None:
        bias = bias + inner * offset
    return inner if scale is None else inner * scale, bias.flatten(2).sum(2)


def crown_relu_bwd(
    grad_rows: Tensor | None,  # [B, S, C, *]
    grad_bias: Tensor | None,  # [B, S]
    rows: Tensor | None,  # [B, S, C, *], None if `reads_output`
    out_rows: Tensor | None,  # [B, S, C, *], None if not
    center: Tensor,  # [B, C, *]
    radius: Tensor,  # [B, C, *]
    scale: Tensor | None,  # [C]
    shift: Tensor | None,  # [C]
    offset: Tensor | None,  # [C]
    slope: float,
    relaxation: str,
    needs: tuple[bool, ...],
) -> Gradients:
    """Gradients of rows, center, radius, scale, shift and offset."""
    dim = center.dim()
    kept = out_rows if reads_output(center.dtype, scale) else rows
    assert kept is not None
    g_rows = torch.zeros_like(kept) if grad_rows is None else grad_rows
    g_bias = kept.new_zeros(kept.shape[:2]) if grad_bias is None else grad_bias
    g_bias = g_bias.view(*g_bias.shape, *(1,) * (dim - 1))
    wide_scale, wide_shift, wide_offset = (_channels(v, dim) for v in (scale, shift, offset))
    c, r = _affine(center, radius, wide_scale, wide_shift)
    lower, upper, intercept = (line.unsqueeze(1) for line in lines(c, r, slope, relaxation))
    negative = kept < 0
    taken = torch.where(negative, upper, lower)
    rows = kept / torch.where(taken == 0, 1.0, taken) if kept is out_rows else kept
    inner = rows * taken
    g_inner = g_rows if wide_scale is None else g_rows * wide_scale
    if wide_offset is not None:
        g_inner = g_inner + g_bias * wide_offset
    d_rows = g_inner * taken + negative * (g_bias * intercept)
    on_chord = torch.ones_like(negative) if relaxation == "same-slope" else negative
    g_slope = (g_inner * rows * on_chord).sum(1)
    g_intercept = (g_bias * torch.where(negative, rows, 0.0)).sum(1)
    d_c, d_r = chord_gradient(g_slope, g_intercept, c, r, slope)
    d_center = d_c if wide_scale is None else d_c * wide_scale
    d_radius = d_r if wide_scale is None else d_r * wide_scale.abs()
    dims = [d for d in range(dim) if d != 1]
    d_scale = d_shift = d_offset = None
    if scale is not None and wide_scale is not None:
        d_scale = ((g_rows * inner).sum(1) + d_c * center + d_r * radius * wide_scale.sign()).sum(dims)
    if shift is not None:
        d_shift = d_c.sum(dims)
    if offset is not None:
        d_offset = (g_bias * inner).sum(1).sum(dims)
    return d_rows, d_center, d_radius, d_scale, d_shift, d_offset


def chord_gradient(
    grad_slope: Tensor,  # [B, *]
    grad_intercept: Tensor,  # [B, *]
    center: Tensor,  # [B, *]
    radius: Tensor,  # [B, *]
    slope: float,
) -> tuple[Tensor, Tensor]:  # gradients of center and radius [B, *]
    stable = center.abs() >= radius
    # 1 / r overflows if r is subnormal; the guard changes the gradient there, but no bound.
    width = torch.where(stable, torch.ones_like(radius), radius.clamp(min=torch.finfo(radius.dtype).tiny))
    quotient = center / width
    half = (1 - slope) / 2
    d_slope = grad_slope * (half / width)
    d_center = d_slope - grad_intercept * (2 * half * quotient)
    d_radius = grad_intercept * (half * (1 + quotient * quotient)) - d_slope * quotient
    zero = torch.zeros_like(center)
    return torch.where(stable, zero, d_center), torch.where(stable, zero, d_radius)


def _channels(vector: Tensor | None, dim: int) -> Tensor | None:  # [C] -> [C, 1, ...] against [B, C, *] of ``dim``
    return None if vector is None else vector.view(-1, *(1,) * (dim - 2))


def _affine(
    center: Tensor, radius: Tensor, scale: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor]:  # [B, C, *], [B, C, *]
    if scale is not None:
        center, radius = center * scale, radius * scale.abs()
    return (center if shift is None else center + shift), radius


def rounding(
    rows: Tensor,  # [B, S, C, *]
    center: Tensor,  # [B, C, *]
    radius: Tensor,  # [B, C, *]
    scale: Tensor | None,  # [C]
    shift: Tensor | None,  # [C]
    offset: Tensor | None,  # [C]
    slope: float,
    relaxation: str,
) -> tuple[int, tuple[Tensor, ...]]:
    """The number of rounded operations in an output, and the magnitude of its terms, for the tests."""
    scale, shift, offset = (_channels(v, center.dim()) for v in (scale, shift, offset))
    taken, intercept, _, _ = _magnitudes(center, radius, scale, shift, slope)
    wide = 1 if scale is None else scale.abs()
    constant = intercept if offset is None else intercept + taken * offset.abs()
    bias = (rows.abs() * constant.unsqueeze(1)).flatten(2).sum(2)
    return 32 + rows[:1, :1].numel(), (rows.abs() * (taken * wide).unsqueeze(1), bias)


def rounding_bwd(grads: tuple[Tensor, ...], args: tuple[Any, ...]) -> tuple[int, tuple[Tensor | None, ...]]:
    rows, center, radius, scale, shift, offset, slope, _ = args
    dim = center.dim()
    g_rows, g_bias = grads[0].abs(), grads[1].abs().view(*grads[1].shape, *(1,) * (dim - 1))
    wide_scale, wide_shift, wide_offset = (_channels(v, dim) for v in (scale, shift, offset))
    taken, intercept, quotient, width = _magnitudes(center, radius, wide_scale, wide_shift, slope)
    factor = torch.ones(()) if wide_scale is None else wide_scale.abs()
    g_inner = g_rows * factor + (0 if wide_offset is None else g_bias * wide_offset.abs())
    d_rows = g_inner * taken.unsqueeze(1) + g_bias * intercept.unsqueeze(1)
    half, g_intercept = (1 - slope) / 2, (g_bias * rows.abs()).sum(1)
    d_slope = (g_inner * rows.abs()).sum(1) * half / width
    d_c = d_slope + 2 * half * g_intercept * quotient
    d_r = half * g_intercept * (1 + quotient**2) + d_slope * quotient
    dims = [d for d in range(dim) if d != 1]
    d_scale = ((g_rows * rows.abs()).sum(1) * taken + d_c * center.abs() + d_r * radius).sum(dims)
    d_offset = ((g_bias * rows.abs()).sum(1) * taken).sum(dims)
    channels = [None if v is None else d for v, d in ((scale, d_scale), (shift, d_c.sum(dims)), (offset, d_offset))]
    return 64 + rows.numel(), (d_rows, d_c * factor, d_r * factor, *channels)


def _magnitudes(
    center: Tensor, radius: Tensor, scale: Tensor | None, shift: Tensor | None, slope: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # of the slopes, the intercept and the quotient c / r; the divisor, [B, *]
    c, r = _affine(center, radius, scale, shift)
    size, _ = _affine(
        center.abs(), radius, None if scale is None else scale.abs(), None if shift is None else shift.abs()
    )
    width = torch.where(c.abs() >= r, 1.0, r)
    quotient = torch.where(c.abs() >= r, 1.0, size / width)
    half = (1 - slope) / 2
    return (1 + slope) / 2 + half * quotient + half, half * (r + size * quotient), quotient, width


def samples(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> list[tuple[str, tuple[Any, ...]]]:
    """Named argument lists of ``crown_relu_fwd``: stable, unstable and degenerate neurons, rows of both signs and 0."""

    def make(
        shape: tuple[int, ...],
        rows: int,
        norm: bool = False,
        offset: bool = False,
        slope: float = 0.0,
        relaxation: str = "adaptive",
        channels_last: bool = False,
    ) -> tuple[Any, ...]:
        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).to(device)

        batch = shape[0]
        matrix, center, radius = normal(batch, rows, *shape[1:]), normal(*shape), normal(*shape).abs()
        matrix[torch.rand(matrix.shape, generator=generator).to(device) < 0.1] = 0
        radius[torch.rand(radius.shape, generator=generator).to(device) < 0.1] = 0
        if channels_last:
            matrix = matrix.movedim(2, -1).contiguous().movedim(-1, 2)
            center, radius = (x.movedim(1, -1).contiguous().movedim(-1, 1) for x in (center, radius))
        channels = shape[1]
        scale, shift = (normal(channels), normal(channels)) if norm else (None, None)
        return matrix, center, radius, scale, shift, normal(channels) if offset else None, slope, relaxation

    return [
        ("relu", make((3, 7), 4)),
        ("leaky relu", make((3, 5, 4), 2, slope=0.1)),
        ("same slope", make((2, 33), 3, relaxation="same-slope")),
        ("zero", make((2, 19), 3, relaxation="zero")),
        ("one", make((2, 19), 3, relaxation="one", slope=0.2)),
        ("bias of a map", make((2, 3, 5, 4), 3, offset=True)),
        ("norm of a map", make((2, 6, 5, 3), 2, norm=True, offset=True)),
        ("channels last", make((2, 19, 5, 3), 9, norm=True, offset=True, channels_last=True)),
        ("norm of features", make((5, 17), 1, norm=True, offset=True, relaxation="same-slope")),
        ("wide", make((2, 5, 24, 25), 3, norm=True, offset=True, channels_last=True)),
        ("single", make((1, 1), 1)),
        ("empty batch", make((0, 3, 4, 4), 2)),
        ("no rows", make((2, 3, 4, 4), 0)),
        ("no channels", make((2, 0, 3), 2, norm=True, offset=True)),
        ("no pixels", make((2, 3, 4, 0), 2, norm=True, offset=True)),
        ("volume", make((2, 3, 2, 3, 2), 2, norm=True, offset=True)),
    ]
