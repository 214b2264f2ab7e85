"""Memory orders of maps: how to tell them apart, and conversion at memory speed (on a GPU by torch's own copy)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound import _C
from fastbound.native import HALVES
from fastbound.primitives import PRODUCT_DTYPES as DTYPES  # noqa: F401
from fastbound.primitives import Pair


def unsupported(device_type: str, dtype: torch.dtype) -> None:
    """None for all maps, because torch copies those that the compiled pass cannot read."""


def channel_layout(x: Tensor) -> tuple[int, int, int] | None:
    """(outer, C, inner) of the memory order of ``x`` [B, C, *], or None if it is neither NCHW nor channels_last."""
    batch, channels = x.shape[:2]
    spatial = x.shape[2:].numel()
    if x.is_contiguous():
        return batch, channels, spatial
    if x.movedim(1, -1).is_contiguous():
        return batch * spatial, channels, 1
    return None


def as_channels_last(x: Tensor) -> Tensor:
    """``x`` [B, C, H, W] with channels_last strides, also if one channel makes the format ambiguous."""
    batch, channels, height, width = x.shape
    if x.is_contiguous(memory_format=torch.channels_last) or (channels == 1 and x.is_contiguous()):
        strides = (height * width * channels, 1, width * channels, channels)  # torch allows others for sides of 1
        return x if x.stride() == strides else x.as_strided(x.shape, strides)
    if not _native(x) or not x.is_contiguous():
        return x.contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(x, memory_format=torch.channels_last)
    _C.swap_axes(batch, channels, height * width, x, out)
    return out


def as_convolved(x: Tensor, stride: Pair) -> Tensor:  # [B, C, H, W]
    """``x`` in the memory order in which convolutions are fastest: channels_last, except for IEEE types on a GPU.

    oneDNN was measured to be 1.05 to 3.4 times faster in it. Tensor cores read channels_last only: cuDNN transposes
    other maps before and after every convolution.
    """
    tensor_cores = x.dtype in HALVES or (x.dtype == torch.float32 and _convolves_in_tf32())
    if x.device.type != "cpu" and not tensor_cores:
        return x
    if x.shape[3] == 1 or (x.shape[1] == 1 and stride[0] != stride[1]):
        # With channels_last strides oneDNN crashes for maps one pixel wide whose windows meet padding alone, and is
        # wrong for results one pixel wide of one channel under uneven strides (torch 2.13).
        size = x.shape[2:].numel()
        return x.contiguous().as_strided(x.shape, (x.shape[1] * size, size, x.shape[3], 1))
    return as_channels_last(x)


def _convolves_in_tf32() -> bool:
    backends: Any = torch.backends
    return backends.cudnn.conv.fp32_precision == "tf32"


def as_contiguous(x: Tensor) -> Tensor:
    """``x`` [*, C, H, W], or of fewer dimensions, in row-major order."""
    if x.is_contiguous() or x.dim() < 4 or not _native(x):
        return x.contiguous()
    if not x.movedim(-3, -1).is_contiguous():
        return x.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype)
    channels, height, width = x.shape[-3:]
    _C.swap_axes(x.shape[:-3].numel(), height * width, channels, x, out)
    return out


def in_order_of(x: Tensor, other: Tensor) -> Tensor:
    """The gradient ``x`` in the memory order of ``other``, a dense tensor of the same shape."""
    x = x.resolve_neg()
    if all(a == b or size == 1 for a, b, size in zip(x.stride(), other.stride(), x.shape)):
        return x
    if x.dim() >= 4 and x.is_contiguous() and other.movedim(-3, -1).is_contiguous():
        return as_channels_last(x.flatten(0, -4)).unflatten(0, x.shape[:-3])
    return torch.empty_like(other).copy_(x)


def _native(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and not x.is_neg()
