"""What primitives require of their arguments: checked here once, before any code reads a tensor.

Shapes, numbers and flags are compared, values are not (but for labels on a CPU), and a message is made only where a
comparison fails, because a training step calls primitives hundreds of times.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NoReturn

import torch
from torch import Tensor

from fastbound.primitives.convolution import Sizes, output_size, room

Place = str | Callable[[], str]  # the name of a function, or what finds its place in a model, which takes time


def refuse(op: Place, name: str, wanted: str, got: object, remedy: str) -> NoReturn:
    raise ValueError(f"{op if isinstance(op, str) else op()}: {name}: wanted {wanted}, got {got}; {remedy}.")


def require_like(op: str, name: str, tensor: Tensor, like: str, other: Tensor) -> None:  # [*], [*]
    """Raises ValueError unless ``tensor`` has the shape of ``other``, which the caller knows as ``like``."""
    if tensor.shape != other.shape:
        wanted = f"shape {tuple(other.shape)}, that of {like}"
        refuse(op, name, wanted, tuple(tensor.shape), "expand what shall broadcast")


def require_vector(op: Place, name: str, vector: Tensor | None, length: int, of: str, shape: torch.Size) -> None:
    """Raises ValueError unless ``vector`` is None, or has one number for each of the ``length`` parts of a tensor."""
    if vector is not None and vector.shape != (length,):
        wanted = f"shape ({length},), one number for each {of} {tuple(shape)}"
        refuse(op, name, wanted, tuple(vector.shape), "pass a vector of that length, because nothing is broadcast")


def require_streams(op: str, stack: Tensor, radius: Tensor) -> None:  # [N, *], [*]
    """Raises ValueError unless ``stack`` holds one or two streams of the shape of ``radius``."""
    shape = stack.shape
    if shape[1:] != radius.shape or len(shape) == 0 or not 1 <= shape[0] <= 2:
        wanted = ", ".join(map(str, ("N", *radius.shape)))
        remedy = "stack the streams along a new first dimension, and expand a radius that shall broadcast"
        refuse(op, "stack", f"[{wanted}] for this radius, N = 1 (center) or 2 (nominal, center)", tuple(shape), remedy)


def require_rows(
    op: str, rows: Tensor, center: Tensor, radius: Tensor, least: int
) -> None:  # [B, S, *], [B, *], [B, *]
    """Raises ValueError unless rows [B, S, *], of at least ``least`` dimensions, belong to a box [B, *]."""
    require_like(op, "radius", radius, "center", center)
    shape, box = rows.shape, center.shape
    if len(shape) < least or shape[:1] + shape[2:] != box:
        wanted = "[B, S, *]" if least == 2 else "[B, S, C, *]"
        got = f"{tuple(shape)} for a box of {tuple(box)}"
        refuse(op, "rows", f"{wanted} for a center {wanted.replace('S, ', '')}", got, "flatten other dimensions into S")


def require_channels(op: str, name: str, maps: Tensor) -> None:  # [B, C, *]
    """Raises ValueError unless each channel of ``maps`` has a value."""
    shape = maps.shape
    if len(shape) < 2 or 0 in shape[:1] + shape[2:]:
        refuse(op, name, "[B, C, *] with at least one value for each channel", tuple(shape), "pass a batch of maps")


def require_norm(
    op: str,
    shape: torch.Size,
    mean: Tensor | None,  # [C]
    var: Tensor | None,  # [C]
    weight: Tensor | None,  # [C]
    bias: Tensor | None,  # [C]
    eps: float,
    batch_statistics: bool,
) -> None:
    """Raises ValueError unless the vectors of a BatchNorm, or none, belong to maps [B, C, *] of a ``shape``."""
    if mean is None and var is None and weight is None and bias is None and not batch_statistics:
        return
    for name, vector in (("mean", mean), ("var", var)):
        if vector is None:
            refuse(op, name, "a tensor [C]", None, "pass mean and var, or no argument of a norm at all")
    if len(shape) < 2:
        refuse(op, "mean", "no statistics for maps without channels", tuple(shape), "pass maps [B, C, *]")
    channels = shape[1]
    for name, vector in (("mean", mean), ("var", var), ("weight", weight), ("bias", bias)):
        require_vector(op, name, vector, channels, "channel of maps", shape)
    if not eps >= 0:
        refuse(op, "eps", "a number of at least 0", eps, "torch's default is 1e-5")


def require_slope(op: str, slope: float) -> None:
    if not 0 <= slope <= 1:
        refuse(op, "negative_slope", "a number in [0, 1]", slope, "0 is ReLU, 1 no activation")


def require_choice(op: str, name: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{op}: {name}: wanted one of {', '.join(choices)}, got {value!r}.")


def require_labels(op: str, labels: Tensor, radius: Tensor, classes: int) -> None:  # [B], [B, D]
    """Raises unless ``labels`` are int64, one for each sample, and in [0, classes) as far as the host can see them."""
    if labels.dtype != torch.int64:
        raise TypeError(f"{op}: labels: wanted torch.int64, got {labels.dtype}; convert them: labels.long().")
    require_vector(op, "labels", labels, radius.shape[0], "sample of radius", radius.shape)
    if labels.device != radius.device:
        refuse(op, "labels", f"the device of radius, {radius.device}", labels.device, "move them")
    if labels.device.type == "cpu" and not torch.compiler.is_compiling() and labels.numel():
        low, high = torch.aminmax(labels)
        if low.item() < 0 or high.item() >= classes:
            got = f"{int(low)} to {int(high)}"
            refuse(op, "labels", f"classes in [0, {classes})", got, "drop samples without a class")


def require_linear(op: str, weight: Tensor, bias: Tensor | None) -> None:  # [O, I], [O]
    if weight.dim() != 2:
        refuse(op, "weight", "[O, I]", tuple(weight.shape), "flatten or unsqueeze it")
    require_vector(op, "bias", bias, weight.shape[0], "output of weight", weight.shape)


def require_convolution(
    op: str,
    name: str,
    size: Sizes,
    weight: Tensor,  # [O, C / groups, *K]
    bias: Tensor | None,  # [O]
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> Sizes:
    """The shape (O, *) of what a convolution gives for maps of ``size``, which the argument ``name`` has.

    Raises ValueError if there is no such convolution.
    """
    if weight.dim() != len(size) + 2:
        wanted = f"{len(size) + 2} dimensions, [O, C / groups, *K]"
        refuse(op, "weight", wanted, tuple(weight.shape), "unsqueeze those of size 1")
    require_vector(op, "bias", bias, weight.shape[0], "output of weight", weight.shape)
    unhashable = list in (type(size), type(stride), type(padding), type(dilation))
    outputs = _outputs if unhashable or torch.compiler.is_compiling() else _known_outputs
    return outputs(op, name, size, weight.shape, stride, padding, dilation, groups)


def _outputs(
    op: str, name: str, size: Sizes, weight: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Sizes:
    dims, shape = len(size), tuple(weight)
    for which, value, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        if not isinstance(value, (tuple, list)) or len(value) != dims or any(number < least for number in value):
            wanted = f"{dims} numbers from {least} on for weight {shape}, one for each dimension of the maps"
            refuse(op, which, wanted, repr(value), "write a tuple")
    if groups < 1 or shape[0] % groups or (dims == 0 and groups > 1):
        wanted = f"a number that divides the {shape[0]} outputs of weight {shape}, and 1 for a linear layer"
        refuse(op, "groups", wanted, groups, "pass the layer's own")
    if dims and min(shape) < 1:
        refuse(op, "weight", "at least one output, one channel and one pixel", shape, "leave such a layer out")
    if min(size, default=1) < 1 or min(room(size, shape[2:], padding, dilation), default=0) < 0:
        wanted = f"room for the window {shape[2:]} with dilation {tuple(dilation)}"
        refuse(op, name, wanted, f"maps of {tuple(size)} pixels with padding {tuple(padding)}", "pad the maps")
    return shape[0], *output_size(size, shape[2:], stride, padding, dilation)


_known_outputs = lru_cache(maxsize=1024)(_outputs)  # the convolutions of a network come again at every step
