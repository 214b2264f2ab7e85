"""The layout of tensors in the kernels: channels innermost and dense, all maps of a call in one order."""

from __future__ import annotations

import warnings

from torch import Tensor

ALIGNMENT = 16  # bytes; a tile is loaded in words of this size


def innermost(x: Tensor) -> Tensor:  # [*, C, H, W] -> [*, H, W, C]
    """The map with its channels last, copied if they are not innermost in memory."""
    return dense(x.movedim(-3, -1))


def outermost(x: Tensor) -> Tensor:  # [*, H, W, C] -> [*, C, H, W]
    """The same memory, seen as torch sees maps: channels_last."""
    return x.movedim(-1, -3)


def weight_rows(weight: Tensor) -> Tensor:  # [O, C, KH, KW] -> [O, KH, KW, C]
    return dense(weight.permute(0, 2, 3, 1))


def dense(x: Tensor) -> Tensor:
    """``x`` row-major and aligned, so that whole words can be loaded; a copy if it is not.

    The kernels document the memory order that they read, so converting to it needs no warning. An unaligned start
    costs a copy that the caller can avoid, so a warning says so.
    """
    x = x.contiguous()
    if x.data_ptr() % ALIGNMENT == 0:
        return x
    warnings.warn(
        f"a tensor {tuple(x.shape)} starts at an address that is no multiple of {ALIGNMENT} bytes and is copied for "
        "the Triton kernels; views that begin inside another tensor do so.",
        RuntimeWarning,
        stacklevel=2,
    )
    return x.clone()


def pixels(rows: Tensor) -> Tensor:  # [*, F] -> [R, 1, 1, F]
    """Rows of features as maps of one pixel."""
    return dense(rows.reshape(rows.shape[:-1].numel(), 1, 1, rows.shape[-1]))


def stacked_pixels(stack: Tensor) -> Tensor:  # [N, *, F] -> [N, R, 1, 1, F]
    count = stack.shape[1:-1].numel()
    return dense(stack.reshape(stack.shape[0], count, 1, 1, stack.shape[-1]))


def require_groups(stem: str, weight: Tensor, groups: int) -> None:
    """Raises ValueError if the outputs of a weight [O, *] do not divide into groups."""
    if groups < 1 or weight.shape[0] % groups:
        raise ValueError(
            f"{stem}: wanted groups that divide the {weight.shape[0]} outputs of weight {tuple(weight.shape)}, got "
            f"groups={groups}."
        )


def require_streams(stem: str, stack: Tensor) -> None:
    """Raises ValueError for stacks [N, *] that the kernels do not support."""
    if stack.shape[0] not in (1, 2):
        raise ValueError(
            f"{stem}: wanted a stack of 1 stream (center) or 2 (nominal, center), got shape {tuple(stack.shape)}."
        )
