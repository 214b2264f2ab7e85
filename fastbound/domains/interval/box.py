"""Boxes: the intervals that enter a model."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

from fastbound.domains.checks import recording, require, require_finite, require_floating
from fastbound.domains.interval.value import Interval, streams_of
from fastbound.domains.records import Source
from fastbound.domains.tape import Node, Tape, free_after_backward


def linf_box(
    x: Tensor,  # [B, ...]
    eps: float | Tensor,
    lower: float | Tensor | None = None,
    upper: float | Tensor | None = None,
    nominal: bool = True,
) -> Interval:
    """The l_inf ball of radius ``eps`` around each input, clipped to [lower, upper].

    Args:
        x: inputs [B, ...], float32 or float64.
        eps: radius in the units of ``x``, a number or a tensor that broadcasts to x (per channel [C, 1, 1], per
            sample [B, 1, 1, 1]).
        lower, upper: limits of valid inputs, numbers or tensors that broadcast to x; None for no limit.
        nominal: propagate the clean activations too (BatchNorm in training mode and most losses need them).

    Returns:
        An `Interval` [B, ...] to pass through a model.

    Raises:
        TypeError: x is no floating-point tensor. ValueError: eps negative, NaN or of a shape that does not broadcast;
        x with NaN, empty, or outside [lower, upper].

    Soundness: the box is rounded to nearest.
    """
    require_floating("x", x)
    _require_batch(x)
    given, eps = eps, _broadcast("eps", eps, x)
    limits = [
        None if limit is None else _broadcast(name, limit, x) for name, limit in (("lower", lower), ("upper", upper))
    ]
    if not recording(x):
        _require_radius(eps.detach())
        _require_inside(x.detach(), *limits)
    if lower is None and upper is None:
        # Copies, because the caller may reuse x and eps as buffers.
        radius = (eps.clone() if eps is given else eps).expand_as(x)
        return _source(torch.stack((x, x)) if nominal else x.clone().unsqueeze(0), radius)
    low, high = x - eps, x + eps
    low = low if limits[0] is None else torch.maximum(low, limits[0])
    high = high if limits[1] is None else torch.minimum(high, limits[1])
    return _source(*streams_of(low, high, x if nominal else None))


def box(lower: Tensor, upper: Tensor, nominal: Tensor | None = None) -> Interval:
    """The box [lower, upper]; gradients flow into both ends.

    Args:
        lower, upper: [B, ...], float32 or float64, lower <= upper element-wise.
        nominal: clean inputs [B, ...] to propagate too, or None.

    Raises:
        TypeError: not floating-point tensors. ValueError: shapes or dtypes that differ, NaN, lower > upper, batch 0.

    Soundness: center and radius are rounded to nearest.
    """
    require_floating("lower", lower)
    for name, tensor in (("upper", upper), ("nominal", nominal)):
        if tensor is None:
            continue
        require_floating(name, tensor)
        if tensor.shape != lower.shape or tensor.dtype != lower.dtype or tensor.device != lower.device:
            raise ValueError(
                f"{name}: wanted shape {tuple(lower.shape)}, {lower.dtype} on {lower.device} like lower, got "
                f"{tuple(tensor.shape)}, {tensor.dtype} on {tensor.device}."
            )
        require_finite(name, tensor)
    _require_batch(lower)
    require_finite("lower", lower)
    if not recording(lower):
        require((lower.detach() <= upper.detach()).all(), "lower: exceeds `upper` somewhere; swap or clip the ends.")
    return _source(*streams_of(lower, upper, nominal))


def _source(stack: Tensor, radius: Tensor) -> Interval:
    tape = Tape()
    if not torch.compiler.is_compiling() and torch.is_grad_enabled() and (stack.requires_grad or radius.requires_grad):
        stack, radius = free_after_backward(tape, stack, radius)
    return Interval(Node(Source(), (), (stack, radius), tape))


def _require_batch(x: Tensor) -> None:
    if x.dim() < 1 or x.shape[0] == 0:
        raise ValueError(f"x: wanted a non-empty batch [B, ...], got shape {tuple(x.shape)}.")


def _require_radius(eps: Tensor) -> None:
    require(((eps >= 0) & eps.isfinite()).all(), "eps: wanted finite numbers >= 0, got others (or NaN).")


def _require_inside(x: Tensor, lower: Tensor | None, upper: Tensor | None) -> None:
    """Raise unless x is finite and within the limits; for limits that are numbers, one pass over x is enough."""
    low, high = torch.aminmax(x)
    numbers = all(limit is None or limit.dim() == 0 for limit in (lower, upper))
    ends = (low, high) if numbers else (x, x)
    require(torch.isfinite(low) & torch.isfinite(high), "x: contains NaN or infinity.")
    if lower is not None:
        require((ends[0] >= lower).all(), "x: lies below `lower`; scale the inputs or widen the limits.")
    if upper is not None:
        require((ends[1] <= upper).all(), "x: lies above `upper`; scale the inputs or widen the limits.")


def _broadcast(name: str, value: float | Tensor, x: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        if not isinstance(value, Real):
            raise TypeError(f"{name}: wanted a number or a tensor, got {type(value).__name__}.")
        return torch.full((), float(value), dtype=x.dtype, device=x.device)
    if not value.is_floating_point():
        raise TypeError(f"{name}: wanted a floating-point tensor, got {value.dtype}.")
    if value.device != x.device and value.dim() > 0:
        raise ValueError(f"{name}: is on {value.device}, x is on {x.device}; move one of them.")
    if x.dim() > 1 and value.dim() == 1 and value.shape[0] == x.shape[0] != 1 and value.shape[0] != x.shape[-1]:
        view = ", ".join(["-1"] + ["1"] * (x.dim() - 1))
        raise ValueError(
            f"{name}: shape {tuple(value.shape)} does not broadcast to {tuple(x.shape)}; for one value per sample pass "
            f"{name}.view({view})."
        )
    try:
        fits = torch.broadcast_shapes(value.shape, x.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"{name}: shape {tuple(value.shape)} does not broadcast to x, {tuple(x.shape)}.")
    return value.to(dtype=x.dtype, device=x.device)
