"""Error terms of a zonotope, and their propagation through the linear records of the tape.

Term m of sample b adds ``E[m, b]`` times a number in [-1, 1] of its own, to all elements at once. Terms are stored in
blocks by origin: one block for the box, one for each non-linear function. Terms of one origin share their numbers, so
when branches join, their blocks are added; a block that one branch lacks counts as zeros. Constants change no terms.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.linear.arithmetic import align
from fastbound.domains.location import module_path
from fastbound.domains.records import Convolution, Detached, Linear, LinearMap, Norm, Record, Reshape, Scale, Shift, Sum
from fastbound.domains.tape import Node
from fastbound.ops.layout import channels_last, flat_samples
from fastbound.primitives.convolution import as_kernel, as_map


@dataclass(frozen=True, eq=False)
class Diagonal:
    """Terms of a single element each: term m of sample b adds ``value[b, m]`` times its number to ``index[b, m]``.

    All new terms are so; as a tensor they would be identity matrices over images.
    """

    index: Tensor  # [B, M], counted in row-major order of a sample
    value: Tensor  # [B, M]
    shape: torch.Size  # [B, *S]


Block = Tensor | Diagonal  # a tensor is [M, B, *S]
Blocks = dict[int, Block]


@dataclass
class Plan:
    """The settings and counters that all values computed from one zonotope share."""

    relaxation: str
    budget: int  # bytes for the terms of one value
    remainder: bool  # whether terms beyond the budget join an interval; otherwise they are an error
    origins: int = 0
    warned: bool = False

    def new_origin(self) -> int:
        self.origins += 1
        return self.origins

    def room(self, node: Node) -> int:
        """How many terms of the shape of ``node`` fit into the budget."""
        return self.budget // max(1, node.shape.numel() * node.dtype.itemsize)

    def overflow(self, wanted: int, room: int) -> None:
        """Warn that fewer terms are kept than needed, or raise ValueError without a remainder."""
        problem = f"{wanted} error terms{module_path()} do not fit into the budget of {self.budget} bytes, {room} do"
        if not self.remainder:
            raise ValueError(
                f"budget: {problem}; raise it, bound fewer samples at once, pass remainder=True to let an interval "
                "hold the rest, or take relaxation='hbox', which makes no new terms."
            )
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"{problem}; an interval holds the others from here on (sound, but looser; no further warning for this "
                "zonotope). Raise budget= or bound fewer samples at once to keep them.",
                stacklevel=2,
            )


@dataclass
class Terms:
    """The error terms of one value, and its bounds in the interval domain, for relaxations that use them."""

    plan: Plan
    blocks: Blocks = field(default_factory=dict)
    interval: Any = None

    def half_width(self) -> Tensor | None:  # [B, *S]
        """The sum of the absolute values of all terms; None without terms."""
        return _total([half_width(block) for block in self.blocks.values()])

    def error_term_width(self, function: Callable[[Tensor], Tensor]) -> Tensor | None:  # [B, *S] -> [B, *T]
        """The half-width of the terms of a linear ``function`` of the value; None without terms."""
        mapped = torch.vmap(function)
        return _total([mapped(dense(block)).abs().sum(0) for block in self.blocks.values() if size(block)])

    def scaled(self, factor: Tensor) -> Blocks:  # [B, *S]
        """The blocks times a factor for each element."""
        return {origin: _times(block, factor) for origin, block in self.blocks.items()}

    def detached(self) -> Terms:
        """A copy without gradients."""
        blocks = {origin: _each_tensor(block, lambda t: t.detach().clone()) for origin, block in self.blocks.items()}
        return Terms(replace(self.plan), blocks)


# ---- blocks --------------------------------------------------------------------------------------------------------


def new_terms(widths: Tensor) -> Diagonal:  # [B, *S], >= 0
    """A term for every element with a width > 0; every sample gets as many as the one that needs most."""
    flat = flat_samples(widths)
    needed = flat.detach() > 0
    count, every = int(needed.sum(1).max()) if flat.numel() else 0, flat.shape[1]
    if count == every:
        return Diagonal(torch.arange(every, device=flat.device).expand(flat.shape), flat, widths.shape)
    index = needed.to(torch.uint8).topk(count, 1).indices.sort(1).values
    return Diagonal(index, flat.gather(1, index), widths.shape)


def size(block: Block) -> int:
    """The number of terms."""
    return block.value.shape[1] if isinstance(block, Diagonal) else block.shape[0]


def dense(block: Block) -> Tensor:  # [M, B, *S]
    if not isinstance(block, Diagonal):
        return block
    batch, count = block.value.shape
    zeros = block.value.new_zeros(batch, count, block.shape[1:].numel())
    whole = zeros.scatter(2, block.index.unsqueeze(2), block.value.unsqueeze(2))
    return whole.transpose(0, 1).unflatten(2, block.shape[1:])


def half_width(block: Block) -> Tensor:  # [B, *S]
    if not isinstance(block, Diagonal):
        return torch.linalg.vector_norm(block, 1, 0)
    zeros = block.value.new_zeros(block.shape[0], block.shape[1:].numel())
    return zeros.scatter(1, block.index, block.value.abs()).view(block.shape)


def kept_within(blocks: Blocks, room: int) -> tuple[Blocks, Tensor | None]:
    """The oldest ``room`` terms, and the half-width [B, *S] of the others. A block is cut after its largest terms."""
    kept: Blocks = {}
    widths = []
    for origin, block in blocks.items():
        if size(block) > room:
            block, rest = _cut(block, room)
            widths.append(half_width(rest))
        if size(block):
            kept[origin] = block
        room -= size(block)
    return kept, _total(widths)


def _cut(block: Block, count: int) -> tuple[Block, Block]:
    """The ``count`` largest terms, and the others."""
    if isinstance(block, Diagonal):  # the largest of each sample
        order = block.value.detach().abs().argsort(1, descending=True)
        index, value = block.index.gather(1, order), block.value.gather(1, order)
        return (
            Diagonal(index[:, :count], value[:, :count], block.shape),
            Diagonal(index[:, count:], value[:, count:], block.shape),
        )
    order = torch.linalg.vector_norm(block.detach().flatten(1), 1, 1).argsort(descending=True)
    return block[order[:count]], block[order[count:]]


def _times(block: Block, factor: Tensor) -> Block:  # factor [B, *S]
    if not isinstance(block, Diagonal):
        return block * factor
    return replace(block, value=block.value * factor.reshape(block.shape[0], -1).gather(1, block.index))


def _each_tensor(block: Block, function: Callable[[Tensor], Tensor]) -> Block:
    if not isinstance(block, Diagonal):
        return function(block)
    return Diagonal(function(block.index), function(block.value), block.shape)


def _total(widths: Sequence[Tensor]) -> Tensor | None:
    return torch.stack(list(widths)).sum(0) if len(widths) > 1 else next(iter(widths), None)


# ---- through the records of the tape -------------------------------------------------------------------------------


def propagated_terms(node: Node, parents: Sequence[Node]) -> tuple[Blocks, Tensor | None]:
    """The terms of a node computed from ``parents``, and the half-width [B, *S] of those beyond the budget.

    Only layers with weights are checked against the budget, because their output may be larger than their input.
    """
    record = node.record
    known = [parent.terms.blocks for parent in parents]
    origins = sorted(set().union(*known))
    if not isinstance(record, (Linear, Convolution)):
        return {o: _propagated_block(record, node, parents, [b.get(o) for b in known]) for o in origins}, None
    plan: Plan = parents[0].terms.plan
    blocks, outside = known[0], None
    wanted, room = sum(map(size, blocks.values())), plan.room(node)
    if wanted > room:
        plan.overflow(wanted, room)
        blocks, outside = kept_within(blocks, room)
    if outside is not None:
        widening = record._replace(weight=record.weight.abs())
        outside = apply_linear_part(widening, node, [outside.unsqueeze(0)]).squeeze(0)
    return {origin: _propagated_block(record, node, parents, [block]) for origin, block in blocks.items()}, outside


def _propagated_block(record: Record, node: Node, parents: Sequence[Node], blocks: list[Block | None]) -> Block:
    if len(blocks) == 1 and isinstance(blocks[0], Diagonal):
        short = _diagonal_through(record, node, blocks[0])
        if short is not None:
            return short
    count = next(size(block) for block in blocks if block is not None)
    whole = [
        parent.radius.new_zeros(()).expand(count, *parent.shape) if block is None else dense(block)
        for parent, block in zip(parents, blocks, strict=True)
    ]
    return apply_linear_part(record, node, whole)


def _diagonal_through(record: Record, node: Node, block: Diagonal) -> Block | None:
    """Terms of one element each through a record, if they remain so or select rows of a weight; else None."""
    if isinstance(record, Linear) and len(block.shape) == 2:
        rows, value = record.weight.T, block.value.T.unsqueeze(2)  # [I, O], [M, B, 1]
        every = value.shape[0] == rows.shape[0]
        return value * (rows.unsqueeze(1) if every else F.embedding(block.index.T, rows))
    if isinstance(record, Reshape):
        return replace(block, shape=node.shape)
    if node.shape != block.shape:
        return None
    if isinstance(record, Norm):
        return _times(block, _norm_scale(record, node).expand(node.shape))
    if isinstance(record, Scale):
        factor = record.factor
        if isinstance(factor, Tensor):
            return _times(block, factor.expand(node.shape))
        return replace(block, value=block.value * factor)
    return block if isinstance(record, Shift) else None


@singledispatch
def apply_linear_part(record: Any, node: Node, blocks: list[Tensor]) -> Tensor:  # [M, B, *S] each -> [M, B, *T]
    """Apply the linear part of a record to terms."""
    raise TypeError(f"error terms cannot be propagated through {type(record).__name__}.")


@apply_linear_part.register
def _(record: Linear, node: Node, blocks: list[Tensor]) -> Tensor:
    return F.linear(blocks[0], record.weight)


@apply_linear_part.register
def _(record: Convolution, node: Node, blocks: list[Tensor]) -> Tensor:
    spatial = record.weight.dim() - 2
    batch = as_map(blocks[0].flatten(0, 1), spatial)
    if spatial == 2 and batch.shape[1] > 1:
        batch = channels_last(batch)
    name = f"conv_transpose{spatial}d" if record.transposed else f"conv{spatial}d"
    settings = [record.stride, record.padding, record.groups, record.dilation]
    settings[2:] = [record.output_padding, *settings[2:]] if record.transposed else settings[:1:-1]
    return getattr(F, name)(batch, as_kernel(record.weight), None, *settings).unflatten(0, blocks[0].shape[:2])


@apply_linear_part.register
def _(record: Norm, node: Node, blocks: list[Tensor]) -> Tensor:
    return blocks[0] * _norm_scale(record, node)


def _norm_scale(record: Norm, node: Node) -> Tensor:  # [C, 1, ...]
    scale, _ = record.affine(node.inputs[0].nominal)
    return scale.view(-1, *(1,) * (len(node.shape) - 2))


@apply_linear_part.register
def _(record: Reshape, node: Node, blocks: list[Tensor]) -> Tensor:
    return blocks[0].reshape(-1, *node.shape)


@apply_linear_part.register
def _(record: LinearMap, node: Node, blocks: list[Tensor]) -> Tensor:
    if record.per_sample:
        return record.function(blocks[0].flatten(0, 1)).unflatten(0, blocks[0].shape[:2])
    return torch.vmap(record.function)(*blocks)


@apply_linear_part.register
def _(record: Detached, node: Node, blocks: list[Tensor]) -> Tensor:
    return blocks[0].detach()


@apply_linear_part.register
def _(record: Scale, node: Node, blocks: list[Tensor]) -> Tensor:
    factor = record.factor
    return align(blocks[0], factor.dim() if isinstance(factor, Tensor) else 0) * factor


@apply_linear_part.register
def _(record: Shift, node: Node, blocks: list[Tensor]) -> Tensor:
    return align(blocks[0], len(node.shape)).expand(-1, *node.shape).to(node.dtype)


@apply_linear_part.register
def _(record: Sum, node: Node, blocks: list[Tensor]) -> Tensor:
    parts = [align(block, len(node.shape)) * sign for block, sign in zip(blocks, record.signs)]
    return sum(parts[1:], parts[0])
