"""The backward rules of sparse rows. For a record without one, the walk makes its rows dense."""

from __future__ import annotations

from dataclasses import replace

from fastbound.crown.sparse import Patches, Units
from fastbound.crown.statistics import norm_affine
from fastbound.crown.walk import Walk, backward_rule
from fastbound.domains.records import Convolution, Elementwise, Linear, Norm, Reshape, Shift, Sum
from fastbound.domains.tape import Node


@backward_rule(Linear, rows=Units)
def _linear(walk: Walk, node: Node, rows: Units) -> None:
    """The rows become rows of the weight."""
    record = node.record_as(Linear)
    if len(node.shape) != 2:
        return walk.use_dense_rule(node, rows)
    if record.bias is not None:
        walk.add_constant(rows.value * record.bias[rows.index])
    walk.propagate_to(node.inputs[0], rows.value.unsqueeze(2) * record.weight[rows.index])


@backward_rule(Convolution, rows=Units)
@backward_rule(Convolution, rows=Patches)
def _convolution(walk: Walk, node: Node, rows: Units | Patches) -> None:
    record = node.record_as(Convolution)
    if record.transposed or len(node.shape) != 4:
        return walk.use_dense_rule(node, rows)
    if isinstance(rows, Patches):
        rows = rows.masked()
    if record.bias is not None:
        if isinstance(rows, Patches):
            walk.add_constant((rows.values.flatten(3).sum(3) * record.bias).sum(2))
        else:
            walk.add_constant(rows.value * rows.per_channel(record.bias))
    _, _, height, width = node.inputs[0].shape
    walk.propagate_to(node.inputs[0], rows.convolution(record, (height, width)))


@backward_rule(Norm, rows=Units)
@backward_rule(Norm, rows=Patches)
def _norm(walk: Walk, node: Node, rows: Units | Patches) -> None:
    scale, shift = norm_affine(node)
    if isinstance(rows, Units):
        walk.add_constant(rows.value * rows.per_channel(shift))
        return walk.propagate_to(node.inputs[0], replace(rows, value=rows.value * rows.per_channel(scale)))
    rows = rows.masked()
    walk.add_constant((rows.values.flatten(3).sum(3) * shift).sum(2))
    walk.propagate_to(node.inputs[0], replace(rows, values=rows.values * scale.view(-1, 1, 1)))


@backward_rule(Elementwise, rows=Units)
@backward_rule(Elementwise, rows=Patches)
def _element_wise(walk: Walk, node: Node, rows: Units | Patches) -> None:
    parent = node.inputs[0]
    out, bias = rows.through_lines(walk.bounds.lines(node, walk.options.relaxation))
    walk.add_constant(bias)
    walk.propagate_to(parent, out)


@backward_rule(Reshape, rows=Units)
def _reshape(walk: Walk, node: Node, rows: Units) -> None:
    walk.propagate_to(node.inputs[0], replace(rows, shape=node.inputs[0].shape[1:]))


@backward_rule(Shift, rows=Units)
def _shift(walk: Walk, node: Node, rows: Units) -> None:
    if not _keeps_shape_and_dtype(node):
        return walk.use_dense_rule(node, rows)
    offset = node.radius.new_zeros(()) + node.record_as(Shift).offset
    walk.add_constant(rows.value * rows.pick(offset.expand(node.shape)))
    walk.propagate_to(node.inputs[0], rows)


@backward_rule(Sum, rows=Units)
@backward_rule(Sum, rows=Patches)
def _sum(walk: Walk, node: Node, rows: Units | Patches) -> None:
    if not _keeps_shape_and_dtype(node):
        return walk.use_dense_rule(node, rows)
    for sign, parent in zip(node.record_as(Sum).signs, node.inputs):
        walk.propagate_to(parent, rows if sign == 1 else rows * sign)


def _keeps_shape_and_dtype(node: Node) -> bool:
    """Whether all inputs have the shape and dtype of the node, so that its rows are also rows of theirs."""
    return all(parent.shape == node.shape and parent.dtype == node.dtype for parent in node.inputs)
