"""The backward walk: linear functions of a node, rewritten as linear functions of what the node was made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol, get_args

from torch import Tensor

from fastbound.crown.checks import refuse, require_gradients, require_samples_apart
from fastbound.crown.options import Options
from fastbound.crown.relaxations import Lines, lines
from fastbound.domains.records import Elementwise, LinearRecord, RelaxedRecord, Source
from fastbound.domains.tape import Node, topological
from fastbound.ops import crown_concretize


class Sparse(Protocol):
    """Rows [B, S, *] in another form than a tensor."""

    def dense(self) -> Tensor: ...

    def concretize(self, center: Tensor, radius: Tensor) -> Tensor: ...


# A rule takes (walk, node, rows) and hands rows over to the node's inputs with `Walk.give`, constants to `Walk.add`.
# Rows are a tensor [B, S, *] or one of the sparse forms; a form without a rule for a record becomes a tensor.
Rule = Callable[["Walk", Node, Any], None]
RULES: dict[tuple[type, type], Rule] = {}


def backward_rule(*records: type, rows: type = Tensor) -> Callable[[Rule], Rule]:
    """Decorate a function as the backward rule of record types of the tape, for rows of a form."""

    def register(rule: Rule) -> Rule:
        for record in records:
            if record not in (*get_args(LinearRecord), *get_args(RelaxedRecord)):
                raise TypeError(f"backward_rule: {record.__name__} is neither a linear record nor a relaxed one.")
            RULES[record, rows] = rule
        return rule

    return register


class Path:
    """The nodes between an output and its box, in the order of a backward walk; checked once, walked many times."""

    def __init__(self, target: Node, options: Options) -> None:
        target.check()
        self.target = target
        self.options = options
        self.order: list[Node] = []
        reached = {id(target)}
        for node in topological(target):
            if id(node) not in reached:  # behind a fallback
                continue
            self.order.append(node)
            node.check()
            require_gradients(node)
            if (type(node.record), Tensor) in RULES:
                require_samples_apart(node)
                reached.update(id(parent) for parent in node.inputs)
            elif not isinstance(node.record, Source) and options.fallback is None:
                refuse(node)
        self.consumers = Counter(id(parent) for node in self.order for parent in node.inputs)
        self.row_bytes = max(node.shape.numel() for node in self.order) * self.order[-1].radius.element_size()

    def lower(self, rows: Tensor | Sparse, bounds: Bounds) -> Tensor:  # [B, S, *] -> [B, S]
        """The least values of the functions ``rows`` of the target."""
        return Walk(self, bounds).run(rows)

    def linear(self, rows: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:  # [B, S, *] -> [B, S, *box], [B, S]
        """Linear lower bounds of the functions ``rows`` of the target, as functions of the box."""
        return Walk(self, bounds).run_to_source(rows)


class Bounds:
    """Pre-activation bounds in use: those of the interval domain, or tighter ones where a method has found them."""

    def __init__(self) -> None:
        self._tightened: dict[int, tuple[Tensor, Tensor]] = {}
        self._lines: dict[int, Lines] = {}

    def of(self, node: Node) -> tuple[Tensor, Tensor]:
        """Center and radius [B, *] of a node."""
        return self._tightened.get(id(node)) or node.box

    def lines(self, node: Node, relaxation: str) -> Lines:
        """The relaxation of an element-wise function, made once for all passes."""
        if id(node) not in self._lines:
            function = node.record_as(Elementwise).function
            self._lines[id(node)] = lines(function, *self.of(node.inputs[0]), relaxation)
        return self._lines[id(node)]

    def tightened(self, node: Node) -> bool:
        return id(node) in self._tightened

    def tighten(self, node: Node, center: Tensor, radius: Tensor) -> None:  # [B, *], [B, *]
        self._tightened[id(node)] = (center, radius)


class Walk:
    """One pass from a target to its box. A node is visited once, when the rows of all its consumers have been added."""

    def __init__(self, path: Path, bounds: Bounds) -> None:
        self.path = path
        self.options = path.options
        self.bounds = bounds
        self.bias: Tensor | None = None  # [B, S]
        self.paid: set[int] = set()  # nodes whose constant a fused rule has added already
        self._rows: dict[int, Any] = {}

    def run(self, rows: Tensor | Sparse) -> Tensor:  # [B, S]
        for node, part in self._sources(rows):
            self.add(_concretized(part, node.center, node.radius))
        assert self.bias is not None
        return self.bias.to(self.path.target.dtype)

    def run_to_source(self, rows: Tensor) -> tuple[Tensor, Tensor]:  # [B, S, *], [B, S]
        source, *others = (node for node in self.path.order if isinstance(node.record, Source))
        if others:
            raise ValueError(
                f"out: depends on {1 + len(others)} boxes, and a linear function has the coefficients of one; join "
                "them into one box before the model."
            )
        found = self._sources(rows)
        shape = (*rows.shape[:2], *source.shape[1:])
        total = next((part for _, part in found), source.radius.new_zeros(shape))
        bias = source.radius.new_zeros(shape[:2]) if self.bias is None else self.bias
        return dense(total), bias

    def give(self, node: Node, rows: Any) -> None:
        """Add ``rows`` to the functions of ``node``."""
        if isinstance(rows, Tensor):  # a constant of another dtype promotes them, and native passes read one dtype
            rows = rows.to(node.dtype)
        known = self._rows.get(id(node))
        self._rows[id(node)] = rows if known is None else known + rows

    def add(self, bias: Tensor | None) -> None:  # [B, S]
        """Add to the constants of the functions."""
        if bias is not None:
            self.bias = bias if self.bias is None else self.bias + bias

    def densely(self, node: Node, rows: Tensor | Sparse) -> None:
        """Answer with the rule for dense rows."""
        RULES[type(node.record), Tensor](self, node, dense(rows))

    def alone(self, node: Node) -> bool:
        """Whether the node has one consumer, so that a rule may reach through it."""
        return self.path.consumers[id(node)] == 1

    def _sources(self, rows: Tensor | Sparse) -> list[tuple[Node, Any]]:
        self._rows[id(self.path.target)] = rows
        found = []
        for node in self.path.order:
            part = self._rows.pop(id(node), None)
            if part is None:  # a fused rule has reached through it
                continue
            if isinstance(node.record, Source):
                found.append((node, part))
            elif (type(node.record), Tensor) in RULES:
                RULES.get((type(node.record), type(part)), Walk.densely)(self, node, part)
            else:  # a fallback to intervals
                self.add(_concretized(part, *self.bounds.of(node)))
        return found


def dense(rows: Tensor | Sparse) -> Tensor:
    """Rows as one tensor [B, S, *], whatever form a rule keeps them in."""
    return rows if isinstance(rows, Tensor) else rows.dense()


def _concretized(rows: Tensor | Sparse, center: Tensor, radius: Tensor) -> Tensor:  # [B, S]
    return crown_concretize(rows, center, radius) if isinstance(rows, Tensor) else rows.concretize(center, radius)
