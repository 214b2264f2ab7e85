"""Checks of values: eager on CPU; asynchronous asserts under compilation and on CUDA; none during graph capture."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound.domains.location import module_path
from fastbound.shapes import Function


def recording(x: Tensor) -> bool:
    """Whether a CUDA graph is being recorded on the device of ``x``, in which case no check computes anything."""
    return x.device.type == "cuda" and not torch.compiler.is_compiling() and torch.cuda.is_current_stream_capturing()


def require(condition: Tensor, message: str) -> None:
    """Raise ValueError(message) unless the boolean scalar ``condition`` holds."""
    if torch.compiler.is_compiling():
        torch._assert_async(condition, message)
    elif condition.device.type == "cpu":
        if not condition:
            raise ValueError(message)
    elif not recording(condition):
        torch._assert_async(condition, message)


def require_floating(name: str, tensor: Tensor) -> None:
    """Raise TypeError unless ``tensor`` has a dtype in which bounds can be computed on its device."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: wanted a torch.Tensor, got {type(tensor).__name__}.")
    if not tensor.is_floating_point():
        raise TypeError(
            f"{name}: wanted a floating-point tensor, got {tensor.dtype}; convert the pixels first, "
            "e.g. x.float() / 255."
        )
    if tensor.dtype in (torch.float16, torch.bfloat16) and tensor.device.type == "cpu":
        raise TypeError(f"{name}: {tensor.dtype} bounds are not supported on CPU; pass float32 or float64.")


def require_finite(name: str, tensor: Tensor) -> None:
    """Raise ValueError if ``tensor`` contains NaN or infinity."""
    if not recording(tensor):
        require(torch.isfinite(tensor.detach()).all(), f"{name}: contains NaN or infinity.")


def require_defined(function: Function, name: str, lower: Tensor, upper: Tensor) -> None:  # [*], [*]
    """Raise ValueError if a function is not defined on all of [lower, upper]."""
    if function.defined is None or recording(lower):
        return
    holds = function.defined.holds(lower.detach(), upper.detach())
    wanted = f"{name}{module_path()}: wanted {function.defined.wanted}"
    if lower.device.type == "cpu" and not torch.compiler.is_compiling() and not holds.all():
        place = (~holds).nonzero()[0].tolist()
        low, high = (float(end[tuple(place)]) for end in (lower, upper))
        raise ValueError(f"{wanted}, got [{low:g}, {high:g}] at {place}; {function.defined.advice}.")
    require(holds.all(), f"{wanted}, got an interval that leaves them; {function.defined.advice}.")
