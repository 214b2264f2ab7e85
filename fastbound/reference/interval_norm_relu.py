"""Per-channel affine map (BatchNorm), then leaky ReLU, on all streams at once.

With ``s = weight / sqrt(var + eps)`` and ``t = bias - mean s``: ``x -> s x + t`` on nominal and center, ``r -> |s| r``.
Leaky ReLU with slope a >= 0 (0: ReLU, 1: no activation) is monotone, so with l = c - r, u = c + r it maps [l, u] to
[f(l), f(u)]; in center and radius: active (l >= 0) unchanged; dead (u <= 0) (a c, a r); otherwise
((u + a l) / 2, (u - a l) / 2). At a kink the gradient is that of torch's relu (slope a at 0).

Batch statistics are those of the nominal stream (Xu et al., 2020, arXiv 2002.12920; Shi et al., 2021, arXiv
2103.17268), and the gradient passes through them: with g the gradient of the affine output of all streams,
``S = sum g x + sign(s) sum g_r r`` and ``T = sum g`` give ``dweight = (S - mean T) / sqrt(var + eps)``, ``dbias = T``
and, for the nominal stream, ``dn += -s T / M - (n - mean) s (S - mean T) / ((var + eps) M)`` with M elements a channel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound.primitives import Gradients, batch_norm

# The arguments that `interval_norm_relu_bwd` differentiates; the statistics are not among them.
GRADIENTS = ("stack", "radius", "weight", "bias")


def interval_norm_relu_statistics(nominal: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [C] of ``nominal`` [B, C, *]."""
    return batch_norm.statistics(nominal)


def interval_norm_relu_fwd(
    stack: Tensor,  # [N, B, C, *], without norm any shape [N, *]
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None,  # [C], None: no affine map
    var: Tensor | None,  # [C]
    weight: Tensor | None,  # [C]
    bias: Tensor | None,  # [C]
    eps: float,
    slope: float,
) -> tuple[Tensor, Tensor]:  # [N, B, C, *], [B, C, *]
    stack, radius = normed(stack, radius, mean, var, weight, bias, eps)
    if slope == 1:
        return stack, radius
    center = stack[-1]
    lower, upper = _leaky(center - radius, slope), _leaky(center + radius, slope)
    streams = [(lower + upper) / 2]
    if stack.shape[0] == 2:
        streams.insert(0, _leaky(stack[0], slope))
    return torch.stack(streams), (upper - lower) / 2


def interval_norm_relu_bwd(
    grad_stack: Tensor | None,  # [N, B, C, *]
    grad_radius: Tensor | None,  # [B, C, *]
    stack: Tensor,  # [N, B, C, *]
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None,  # [C]
    var: Tensor | None,  # [C]
    weight: Tensor | None,  # [C]
    bias: Tensor | None,  # [C]
    eps: float,
    slope: float,
    batch_statistics: bool,
    needs: tuple[bool, bool, bool, bool],
) -> Gradients:
    g_stack = torch.zeros_like(stack) if grad_stack is None else grad_stack
    g_radius = torch.zeros_like(radius) if grad_radius is None else grad_radius
    if mean is None or var is None:
        return (*gate(g_stack, g_radius, stack, radius, slope), None, None)
    scale, shift = affine(mean, var, weight, bias, eps, radius.dim())
    g_stack, g_radius = gate(g_stack, g_radius, stack * scale + shift, radius * scale.abs(), slope)
    dims = [d for d in range(radius.dim()) if d != 1]
    total = g_stack.sum([0] + [d + 1 for d in dims])
    moment = (g_stack * stack).sum([0] + [d + 1 for d in dims]) + scale.flatten().sign() * (g_radius * radius).sum(dims)
    inverse = batch_norm.inverse_deviation(var, eps)
    covariance = moment - mean * total
    d_stack, d_radius = g_stack * scale, g_radius * scale.abs()
    if batch_statistics:
        count = radius.numel() // max(radius.shape[1], 1)
        slope_term = -scale.flatten() * covariance * inverse**2 / count
        offset = -scale.flatten() * total / count - mean * slope_term
        shape = (-1,) + (1,) * (radius.dim() - 2)
        d_stack = torch.cat((d_stack[:1] + stack[:1] * slope_term.view(shape) + offset.view(shape), d_stack[1:]))
    return d_stack, d_radius, covariance * inverse if needs[2] else None, total if needs[3] else None


def normed(
    stack: Tensor,
    radius: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:  # [N, B, C, *], [B, C, *]
    """Only the affine map of the streams; without statistics, the identity."""
    if mean is None or var is None:
        return stack, radius
    scale, shift = affine(mean, var, weight, bias, eps, radius.dim())
    return stack * scale + shift, radius * scale.abs()


def affine(
    mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, dim: int
) -> tuple[Tensor, Tensor]:
    """Scale and shift [C, 1, ...] that broadcast against a map [B, C, *] of ``dim`` dimensions."""
    scale, shift = batch_norm.scale_and_shift(mean, var, weight, bias, eps)
    shape = (-1,) + (1,) * (dim - 2)
    return scale.view(shape), shift.view(shape)


def _leaky(x: Tensor, slope: float) -> Tensor:
    return x.relu() if slope == 0 else torch.nn.functional.leaky_relu(x, slope)


def gate(
    g_stack: Tensor, g_radius: Tensor, stack: Tensor, radius: Tensor, slope: float
) -> tuple[Tensor, Tensor]:  # gradients of the activation's inputs, from those of its outputs
    if slope == 1:
        return g_stack, g_radius

    def derivative(x: Tensor) -> Tensor:
        return torch.where(x > 0, torch.ones_like(x), torch.full_like(x, slope))

    center = stack[-1]
    d_upper = (g_stack[-1] + g_radius) / 2 * derivative(center + radius)
    d_lower = (g_stack[-1] - g_radius) / 2 * derivative(center - radius)
    streams = [d_upper + d_lower]
    if stack.shape[0] == 2:
        streams.insert(0, g_stack[0] * derivative(stack[0]))
    return torch.stack(streams), d_upper - d_lower


def rounding(
    stack: Tensor,
    radius: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    slope: float,
) -> tuple[int, tuple[Tensor, Tensor]]:
    """The number of rounded operations in an output, and the magnitudes of its terms, of both ends c - r and c + r."""
    stack = stack.abs()
    if mean is not None and var is not None:
        scale, shift = affine(-mean.abs(), var, _abs(weight), _abs(bias), eps, radius.dim())
        stack, radius = stack * scale + shift, radius * scale
    ends = stack[-1] + radius
    return 16, (max(1.0, slope) * torch.cat((stack[:-1], ends.unsqueeze(0))), max(1.0, slope) * ends)


def rounding_bwd(grads: tuple[Tensor, Tensor], args: tuple[Any, ...]) -> tuple[int, Gradients]:
    """The same for the gradients."""
    return rounding_affine_bwd(*gate_magnitudes(*grads, args[-1]), args)


def gate_magnitudes(g_stack: Tensor, g_radius: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """The magnitudes after `gate`, which mixes the gradients of center and radius, scaled by at most max(1, slope)."""
    both = max(1.0, slope) * (g_stack[-1].abs() + g_radius.abs())
    return torch.cat((max(1.0, slope) * g_stack[:-1].abs(), both.unsqueeze(0))), both


def rounding_affine_bwd(g_stack: Tensor, g_radius: Tensor, args: tuple[Any, ...]) -> tuple[int, Gradients]:
    """`rounding_bwd` from the magnitudes of the gradients of the affine map's output."""
    stack, radius, mean, var, weight, bias, eps, _ = args
    negative_mean = None if mean is None else -mean.abs()  # the formula subtracts the mean's term: here it adds
    magnitudes = interval_norm_relu_bwd(
        g_stack,
        g_radius,
        stack.abs(),
        radius,
        negative_mean,
        var,
        _abs(weight),
        _abs(bias),
        eps,
        1.0,
        False,
        (True,) * 4,
    )
    return 32 + stack.numel() // max(radius.shape[1:2].numel(), 1), magnitudes


def _abs(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.abs()


def samples(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> list[tuple[str, tuple[Any, ...]]]:
    """Named argument lists of ``interval_norm_relu_fwd``, with weights of both signs."""

    def make(
        shape: tuple[int, ...],
        norm: bool = True,
        affine: bool = True,
        slope: float = 0.0,
        streams: int = 2,
        channels_last: bool = False,
    ) -> tuple[Any, ...]:
        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).to(device)

        stack, radius = normal(streams, *shape), normal(*shape).abs()
        if channels_last:
            stack = stack.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (streams, shape[0]))
            radius = radius.contiguous(memory_format=torch.channels_last)
        if not norm:
            return stack, radius, None, None, None, None, 0.0, slope
        channels = shape[1]
        weight, bias = (normal(channels), normal(channels)) if affine else (None, None)
        return stack, radius, normal(channels), normal(channels).abs() + 0.1, weight, bias, 1e-5, slope

    return [
        ("relu", make((3, 5), norm=False)),
        ("leaky relu", make((3, 5, 4), norm=False, slope=0.1)),
        ("relu of a map", make((2, 3, 5, 4), norm=False, channels_last=True)),
        ("norm, relu", make((2, 6, 5, 3))),
        ("norm, relu, channels last", make((2, 19, 5, 3), channels_last=True)),
        ("norm of features", make((9, 17))),
        ("norm alone", make((4, 3, 7), slope=1.0)),
        ("norm without weight", make((4, 3, 7), affine=False)),
        ("center only", make((4, 3, 2, 2), streams=1)),
        ("single", make((1, 1, 1, 1))),
        ("empty batch", make((0, 3, 4, 4))),
        ("no channels", make((2, 0, 4))),
        ("no pixels", make((2, 3, 4, 0))),
        ("volume", make((2, 3, 2, 3, 2))),
        ("one vector", make((5,), norm=False)),
    ]
