"""The backward rule of each record of the tape, for dense rows. Importing this module registers the rules.

All rows are those of lower bounds: a coefficient >= 0 takes the lower line of a non-linear function, a negative one the
upper line. Upper bounds are lower bounds of negated functions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.crown.max_pool import max_pool
from fastbound.crown.relaxations import Lines
from fastbound.crown.relu_family import FAMILY
from fastbound.crown.statistics import norm_affine
from fastbound.crown.walk import Walk, backward_rule
from fastbound.domains.records import (
    Convolution,
    Detached,
    Elementwise,
    Linear,
    LinearMap,
    MaxPool,
    Norm,
    Reshape,
    Scale,
    Shift,
    Sum,
)
from fastbound.domains.tape import Node, PendingNorm
from fastbound.ops import crown_conv2d, crown_linear, crown_relu
from fastbound.ops.layout import channels_last
from fastbound.primitives.convolution import as_kernel, as_map
from fastbound.shapes import leaky_slope

# ---- layers with weights -------------------------------------------------------------------------------------------


@backward_rule(Linear)
def _linear(walk: Walk, node: Node, rows: Tensor) -> None:
    """If the input is a flattened map without other consumers, pass rows directly to the map, channels innermost."""
    record, parent = node.record_as(Linear), node.inputs[0]
    columns = record.columns if walk.has_one_consumer(parent) else None
    weight = record.weight if columns is None else columns
    out, bias = crown_linear(rows, weight, None if id(node) in walk.bias_added else record.bias)
    if columns is not None:
        parent = parent.inputs[0]
        channels, height, width = parent.shape[1:]
        out = out.unflatten(2, (height, width, channels)).movedim(-1, 2)
    walk.add_constant(bias)
    walk.propagate_to(parent, out)


@backward_rule(Convolution)
def _convolution(walk: Walk, node: Node, rows: Tensor) -> None:
    record = node.record_as(Convolution)
    bias = None if id(node) in walk.bias_added else record.bias
    size = tuple(node.inputs[0].shape[2:])
    if len(size) == 2 and not record.transposed:
        rows, constant = crown_conv2d(rows, record.weight, bias, size, *record.geometry())
        walk.add_constant(constant)
    else:
        if bias is not None:
            walk.add_constant((_per_channel(rows) * bias).sum(2))
        rows = transpose_convolution(record, rows, size)
    walk.propagate_to(node.inputs[0], rows)


def transpose_convolution(record: Convolution, rows: Tensor, size: tuple[int, ...]) -> Tensor:
    """Rows [B, S, O, *] through the transpose of a convolution whose inputs have ``size``: [B, S, C, *size]."""
    spatial = len(size)
    batch, weight = as_map(rows.flatten(0, 1), spatial), as_kernel(record.weight)
    if record.transposed:  # no inputs beyond ``size``: output padding may exceed a stride
        function: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[spatial - 1]
        out = function(batch, weight, None, record.stride, record.padding, record.dilation, record.groups)
        out = out[(slice(None),) * 2 + tuple(slice(n) for n in size)]
    else:
        least = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(rows.shape[3:], record.stride, record.padding, record.dilation, weight.shape[2:])
        ]
        rest = [n - m for n, m in zip(size, least)]
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[spatial - 1]
        out = function(batch, weight, None, record.stride, record.padding, rest, record.groups, record.dilation)
    return out.unflatten(0, rows.shape[:2])


@backward_rule(Norm)
def _norm(walk: Walk, node: Node, rows: Tensor) -> None:
    scale, shift = norm_affine(node)
    shape = (-1, *(1,) * (rows.dim() - 3))
    walk.add_constant((_per_channel(rows) * shift).sum(2))
    walk.propagate_to(node.inputs[0], rows * scale.view(shape))


def _per_channel(rows: Tensor) -> Tensor:  # [B, S, C, *] -> [B, S, C]
    return rows.flatten(3).sum(3) if rows.dim() > 3 else rows


# ---- non-linear functions ------------------------------------------------------------------------------------------


@backward_rule(Elementwise)
def _element_wise(walk: Walk, node: Node, rows: Tensor) -> None:
    parent, relaxation = node.inputs[0], walk.options.relaxation
    slope = leaky_slope(node.record_as(Elementwise).function.shape)
    if slope is not None and relaxation not in FAMILY and len(parent.shape) > 1:
        return _leaky_relu(walk, node, rows, slope)
    out, bias = through_lines(rows, walk.bounds.lines(node, relaxation))
    walk.add_constant(bias)
    walk.propagate_to(parent, out)


def _leaky_relu(walk: Walk, node: Node, rows: Tensor, negative_slope: float) -> None:
    """One pass for the ReLU, the BatchNorm before it and the bias before that, unless others read these."""
    parent, relaxation = node.inputs[0], walk.options.relaxation
    scale = shift = offset = None
    if isinstance(parent, PendingNorm) and walk.has_one_consumer(parent) and not walk.bounds.is_tightened(parent):
        scale, shift = norm_affine(parent)
        offset, parent = shift, parent.inputs[0]
    layer, constant = parent.record, None
    if isinstance(layer, Convolution) or (isinstance(layer, Linear) and len(parent.shape) == 2):
        constant = layer.bias
    if constant is not None and walk.has_one_consumer(parent):
        offset = constant if scale is None or shift is None else torch.addcmul(shift, scale, constant)
        walk.bias_added.add(id(parent))
    out, bias = crown_relu(rows, *walk.bounds.of(parent), scale, shift, offset, negative_slope, relaxation)
    walk.add_constant(bias)
    walk.propagate_to(parent, out)


def through_lines(rows: Tensor, found: Lines) -> tuple[Tensor, Tensor]:  # [B, S, *] -> [B, S, *], [B, S]
    """Each coefficient takes the lower line if it is >= 0, else the upper one."""
    negative = rows < 0
    below = rows.new_zeros(()) if found.lower_offset is None else found.lower_offset.unsqueeze(1)
    offset = torch.where(negative, found.upper_offset.unsqueeze(1), below)
    slope = torch.where(negative, found.upper_slope.unsqueeze(1), found.lower_slope.unsqueeze(1))
    return rows * slope, _summed(rows * offset)


def _summed(rows: Tensor) -> Tensor:  # [B, S, *] -> [B, S]
    return rows.flatten(2).sum(2) if rows.dim() > 2 else rows


@backward_rule(MaxPool)
def _max_pool(walk: Walk, node: Node, rows: Tensor) -> None:
    out, bias = max_pool(node.record_as(MaxPool), rows, *walk.bounds.of(node.inputs[0]))
    walk.add_constant(bias)
    walk.propagate_to(node.inputs[0], out)


# ---- linear functions without weights ------------------------------------------------------------------------------


@backward_rule(Reshape)
def _reshape(walk: Walk, node: Node, rows: Tensor) -> None:
    parent = node.inputs[0]
    out = rows.reshape(*rows.shape[:2], *parent.shape[1:])
    if out.dim() == 5:  # the ReLUs and convolutions before it read maps with the channels innermost
        out = channels_last(out.flatten(0, 1)).unflatten(0, out.shape[:2])
    walk.propagate_to(parent, out)


@backward_rule(LinearMap)
def _linear_map(walk: Walk, node: Node, rows: Tensor) -> None:
    """The transpose of any linear function of the batch: its vector-Jacobian product, vectorised over the rows."""
    record = node.record_as(LinearMap)
    zeros = tuple(torch.zeros_like(parent.radius) for parent in node.inputs)
    transpose = torch.func.vjp(record.function, *zeros)[1]
    parts: tuple[Tensor, ...] = torch.vmap(transpose, in_dims=1, out_dims=1)(rows)
    for parent, part in zip(node.inputs, parts):
        walk.propagate_to(parent, part)


@backward_rule(Detached)
def _detached(walk: Walk, node: Node, rows: Tensor) -> None:
    walk.propagate_to(node.inputs[0], rows)


@backward_rule(Scale)
def _scale(walk: Walk, node: Node, rows: Tensor) -> None:
    factor = node.record_as(Scale).factor
    if isinstance(factor, Tensor):
        factor = _broadcast_to_rows(factor, node)
    walk.propagate_to(node.inputs[0], _unbroadcast(rows * factor, node, node.inputs[0]))


@backward_rule(Shift)
def _shift(walk: Walk, node: Node, rows: Tensor) -> None:
    offset = node.record_as(Shift).offset
    if isinstance(offset, Tensor):
        offset = _broadcast_to_rows(offset, node)
    walk.add_constant(_summed(rows * offset))
    walk.propagate_to(node.inputs[0], _unbroadcast(rows, node, node.inputs[0]))


@backward_rule(Sum)
def _sum(walk: Walk, node: Node, rows: Tensor) -> None:
    for sign, parent in zip(node.record_as(Sum).signs, node.inputs):
        part = rows if parent.shape == node.shape else _unbroadcast(rows, node, parent)
        walk.propagate_to(parent, part if sign == 1 else part * sign)


def _broadcast_to_rows(constant: Tensor, node: Node) -> Tensor:  # broadcasts to [B, *] -> [B, 1, *]
    return constant.expand(node.shape).unsqueeze(1)


def _unbroadcast(rows: Tensor, node: Node, parent: Node) -> Tensor:
    """Rows [B, S, *] of a node, summed over the dimensions along which its parent was broadcast."""
    if parent.shape == node.shape:
        return rows
    return rows.sum_to_size(*rows.shape[:2], *parent.shape[1:])
