"""Functions that move, copy or add up elements: linear with coefficients >= 0, so streams and radius are mapped alike.

A function of known dimensions runs once on the whole stack, with all dimensions shifted by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.derived import as_dims, as_sizes
from fastbound.domains.location import module_path
from fastbound.domains.records import Detached, LinearMap, Record, Reshape, Shift
from fastbound.domains.rules import rule
from fastbound.domains.streams import Streams, emit
from fastbound.domains.tape import Node, PendingFlatten
from fastbound.ops.layout import contiguous


def map_streams(
    input: Streams,
    function: Callable[[Tensor], Tensor],
    on_stack: Callable[[Tensor], Tensor] | None,
    name: str,
    per_sample: bool = False,
) -> Streams:
    """Apply a linear ``function`` of [B, *S] with coefficients >= 0 to every stream and to the radius.

    ``on_stack`` does the same to all streams [N, B, *S] at once; None applies ``function`` one by one.
    """
    stack, radius = input.node.streams
    values = torch.stack([function(stream) for stream in stack]) if on_stack is None else on_stack(stack)
    return emit(LinearMap(function, name, per_sample), (input,), values, function(radius))


def _view(result: Streams, *inputs: Streams) -> Streams:
    """Mark handles whose plain tensors would share memory, so that writing into one raises an error."""
    for handle in (result, *inputs):
        handle._viewed = True
    return result


# ---- shape ---------------------------------------------------------------------------------------------------------


@rule(Streams, torch.reshape, Tensor.reshape)
def reshape(input: Streams, *shape: Any, **kwargs: Any) -> Streams:
    sizes = as_sizes(shape or tuple(kwargs.values()))
    if len(sizes) == 1 and isinstance(sizes[0], torch.dtype):
        raise NotImplementedError(f"view(dtype){module_path()} has no meaning for an abstract value.")
    node = input.node
    if len(sizes) == 2 and _is_flatten(node, sizes):
        flat = torch.Size((node.shape[0], node.shape[1:].numel()))
        waiting = PendingFlatten(Reshape(), node, flat, lambda: _flattened(node))
        return _view(input.on_node(waiting, (input,)), input)
    stack, radius = (contiguous(x) for x in node.stored)
    radius = radius.reshape(sizes)
    batched = radius.dim() > 0 and input.dim() > 0 and radius.shape[0] == input.shape[0]
    record: Record = Reshape() if batched else LinearMap(lambda x: x.reshape(sizes), "reshape")
    stack = stack.reshape(stack.shape[0], *radius.shape)
    return _view(emit(record, (input,), stack, radius, dtype=input.dtype), input)


def _is_flatten(node: Node, sizes: tuple[int, ...]) -> bool:
    """Whether a map [B, C, H, W] that is not in row-major order is flattened to [B, C H W]."""
    if torch.compiler.is_compiling() or len(node.shape) != 4 or node.stored[1].is_contiguous():
        return False
    batch, features = node.shape[0], math.prod(node.shape[1:])
    return sizes in ((batch, features), (batch, -1)) or (sizes == (-1, features) and features > 0)


def _flattened(node: Node) -> tuple[Tensor, Tensor]:
    stack, radius = node.stored
    return contiguous(stack).flatten(2), contiguous(radius).flatten(1)


@rule(Streams, torch.permute)
def permute(input: Streams, *dims: Any, **kwargs: Any) -> Streams:
    order = as_dims(as_sizes(dims or (kwargs["dims"],)), input.dim())
    shifted = (0, *(d + 1 for d in order))
    return _view(map_streams(input, lambda x: x.permute(order), lambda x: x.permute(shifted), "permute"), input)


@rule(Streams, torch.movedim)
def movedim(input: Streams, source: Any, destination: Any) -> Streams:
    return _view(map_streams(input, lambda x: x.movedim(source, destination), None, "movedim"), input)


@rule(Streams, Tensor.expand)
def expand(input: Streams, *sizes: Any, size: Any = None) -> Streams:
    shape = as_sizes(sizes or (size,))
    target = input.node.radius.detach().expand(shape).shape

    def on_stack(x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *(1,) * (len(target) - input.dim()), *x.shape[1:]).expand(x.shape[0], *target)

    return _view(map_streams(input, lambda x: x.expand(target), on_stack, "expand"), input)


@rule(Streams, Tensor.repeat)
def repeat(input: Streams, *sizes: Any, repeats: Any = None) -> Streams:
    repeats = as_sizes(sizes or (repeats,))
    return map_streams(input, lambda x: x.repeat(repeats), None, "repeat")


@rule(Streams, F.pixel_shuffle)
def pixel_shuffle(input: Streams, upscale_factor: int) -> Streams:
    return map_batch(input, lambda x: F.pixel_shuffle(x, upscale_factor), "pixel_shuffle")


@rule(Streams, F.pixel_unshuffle)
def pixel_unshuffle(input: Streams, downscale_factor: int) -> Streams:
    return map_batch(input, lambda x: F.pixel_unshuffle(x, downscale_factor), "pixel_unshuffle")


@rule(Streams, F.channel_shuffle)
def channel_shuffle(input: Streams, groups: int) -> Streams:
    return map_batch(input, lambda x: F.channel_shuffle(x, groups), "channel_shuffle")


def map_batch(input: Streams, function: Callable[[Tensor], Tensor], name: str) -> Streams:
    """Apply a function that treats samples alike to all streams as one batch; otherwise as `map_streams`."""

    def on_stack(x: Tensor) -> Tensor:
        return function(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    return map_streams(input, function, on_stack, name, per_sample=True)


# ---- selection -----------------------------------------------------------------------------------------------------


@rule(Streams, Tensor.__getitem__)
def getitem(input: Streams, index: Any) -> Streams:
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(p, Streams) for p in parts):
        raise NotImplementedError(
            f"indexing with an abstract value{module_path()}: the model's control flow depends on data."
        )
    # Copies: the tape must not see that the caller writes other places into an index.
    parts = tuple(p.clone() if isinstance(p, Tensor) else p for p in parts)
    # Slices, None and Ellipsis can follow a slice for the stream dimension; with a tensor index dimensions may move.
    simple = all(p is None or p is Ellipsis or isinstance(p, (int, slice)) for p in parts)
    shifted = (slice(None), *parts)
    result = map_streams(input, lambda x: x[parts], (lambda x: x[shifted]) if simple else None, "indexing")
    return _view(result, input) if simple else result


@rule(Streams, torch.index_select)
def index_select(input: Streams, dim: int, index: Tensor) -> Streams:
    (dim,) = as_dims(dim, input.dim())
    index = index.clone()  # see `getitem`
    return map_streams(
        input, lambda x: x.index_select(dim, index), lambda x: x.index_select(dim + 1, index), "index_select"
    )


@rule(Streams, torch.flip)
def flip(input: Streams, *sizes: Any, dims: Any = None) -> Streams:
    which = as_dims(as_sizes(sizes or (dims,)), input.dim())
    return map_streams(input, lambda x: x.flip(which), lambda x: x.flip([d + 1 for d in which]), "flip")


@rule(Streams, torch.roll)
def roll(input: Streams, shifts: Any, dims: Any = None) -> Streams:
    return map_streams(input, lambda x: x.roll(shifts, dims), None, "roll")


# ---- joining -------------------------------------------------------------------------------------------------------


@rule(Streams, torch.cat)
def cat(tensors: Sequence[Any], dim: int = 0) -> Streams:
    return _join("cat", tensors, as_dims(dim, tensors[0].dim())[0])


@rule(Streams, torch.stack)
def stack(tensors: Sequence[Any], dim: int = 0) -> Streams:
    return _join("stack", tensors, as_dims(dim, tensors[0].dim() + 1)[0])


def _join(name: str, tensors: Sequence[Any], dim: int) -> Streams:
    """Constants among the tensors become intervals of width 0."""
    join: Callable[..., Tensor] = getattr(torch, name)
    intervals = [t for t in tensors if isinstance(t, Streams)]
    streams = min(t.node.stack.shape[0] for t in intervals)
    stacks, radii = [], []
    for t in tensors:
        if isinstance(t, Streams):
            stacks.append(t.node.stack[-streams:])
            radii.append(t.node.radius)
        else:
            stacks.append(t.expand(streams, *t.shape))
            radii.append(torch.zeros_like(t))
    constants = tuple(None if isinstance(t, Streams) else torch.zeros_like(t) for t in tensors)

    def function(*inputs: Tensor) -> Tensor:
        """The linear part: zeros instead of the constants."""
        batch = iter(inputs)
        return join([next(batch) if c is None else c for c in constants], dim)

    values, radius = join(stacks, dim + 1), join(radii, dim)
    linear = emit(LinearMap(function, name), tuple(intervals), values, radius)
    if len(intervals) == len(tensors):
        return linear
    offset = join([torch.zeros_like(t.node.radius) if isinstance(t, Streams) else t for t in tensors], dim)
    return emit(Shift(offset), (linear,), values, radius)


# ---- padding, sums, resampling -------------------------------------------------------------------------------------


@rule(Streams, F.pad)
def pad(input: Streams, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Streams:
    ends = list(pad)
    if mode != "constant":
        return map_batch(input, lambda x: F.pad(x, ends, mode=mode), "pad")
    linear = map_streams(input, lambda x: F.pad(x, ends), lambda x: F.pad(x, ends), "pad")
    if not value:
        return linear
    offset = F.pad(torch.zeros(input.shape[1:], dtype=input.dtype, device=input.device), ends, value=value)
    stack, radius = linear.node.streams
    return emit(Shift(offset), (linear,), stack + offset, radius)


@rule(Streams, torch.sum)
def sum_(input: Streams, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Streams:
    return _reduce(input, torch.sum, dim, keepdim, dtype)


@rule(Streams, torch.mean)
def mean(input: Streams, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Streams:
    return _reduce(input, torch.mean, dim, keepdim, dtype)


def _reduce(input: Streams, function: Callable[..., Tensor], dim: Any, keepdim: bool, dtype: Any) -> Streams:
    if dtype not in (None, input.dtype):
        raise NotImplementedError(f"{function.__name__}(dtype=...){module_path()}: convert it with .to first.")
    dims = tuple(range(input.dim())) if dim is None or dim == () else as_dims(dim, input.dim())
    shifted = tuple(d + 1 for d in dims)
    return map_streams(
        input, lambda x: function(x, dims, keepdim), lambda x: function(x, shifted, keepdim), function.__name__
    )


@rule(Streams, F.interpolate, F.upsample)
def interpolate(
    input: Streams,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Streams:
    if mode not in ("nearest", "nearest-exact", "linear", "bilinear", "trilinear", "area") or antialias:
        raise NotImplementedError(
            f"interpolate{module_path()}: mode {mode!r} (antialias={antialias}) has negative weights; use 'nearest', "
            "'linear', 'bilinear', 'trilinear' or 'area'."
        )

    def resample(x: Tensor) -> Tensor:
        return F.interpolate(x, size, scale_factor, mode, align_corners, recompute_scale_factor)

    return map_batch(input, resample, "interpolate")


# ---- the same value ------------------------------------------------------------------------------------------------


@rule(Streams, Tensor.contiguous)
def contiguous_(input: Streams, memory_format: Any = None) -> Streams:
    return _view(input.handle(input.node), input)


@rule(Streams, torch.clone)
def clone(input: Streams, *, memory_format: Any = None) -> Streams:
    return input.handle(input.node)


@rule(Streams, torch.detach)
def detach(input: Streams) -> Streams:
    stack, radius = input.node.streams
    return _view(emit(Detached(), (input,), stack.detach(), radius.detach()), input)


@rule(Streams, Tensor.to)
def to(input: Streams, *args: Any, **kwargs: Any) -> Streams:
    if kwargs.pop("memory_format", None) is not None:  # whether the plain tensor is copied depends on its layout
        return _view(_converted(input.handle(input.node), lambda x: x.to(*args, **kwargs)), input)
    return _converted(input, lambda x: x.to(*args, **kwargs))


@rule(Streams, Tensor.float)
def float_(input: Streams) -> Streams:
    return _converted(input, Tensor.float)


@rule(Streams, Tensor.double)
def double(input: Streams) -> Streams:
    return _converted(input, Tensor.double)


def _converted(input: Streams, function: Callable[[Tensor], Tensor]) -> Streams:
    probe = torch.empty(0, dtype=input.dtype, device=input.device)
    converted = function(probe)
    if not converted.is_floating_point():
        raise TypeError(f"to{module_path()}: an abstract value cannot become integers.")
    if converted is probe:  # torch returns the tensor itself, so writing into the result must change the input
        return input
    return map_streams(input, function, function, "to")
