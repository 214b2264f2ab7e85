"""The backward walk: linear functions of a node are rewritten as linear functions of its inputs, down to the box."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol, get_args

from torch import Tensor

from fastbound.crown.options import Options
from fastbound.crown.refusals import refuse_missing_rule, require_gradients
from fastbound.crown.relaxations import Lines, lines
from fastbound.domains.records import Elementwise, LinearRecord, RelaxedRecord, Source
from fastbound.domains.tape import Node, require_separate_samples, topological
from fastbound.ops import crown_concretize


class Sparse(Protocol):
    """Rows [B, S, *] in another form than a dense tensor."""

    def dense(self) -> Tensor: ...

    def concretize(self, center: Tensor, radius: Tensor) -> Tensor: ...


# A rule takes (walk, node, rows), passes rows to the node's inputs with `Walk.propagate_to` and constants to
# `Walk.add_constant`. Rows are a tensor [B, S, *] or sparse; sparse rows without a rule for a record become a tensor.
Rule = Callable[["Walk", Node, Any], None]
RULES: dict[tuple[type, type], Rule] = {}


def backward_rule(*records: type, rows: type = Tensor) -> Callable[[Rule], Rule]:
    """Decorate a function as the backward rule of record types of the tape, for dense rows or the type ``rows``."""

    def register(rule: Rule) -> Rule:
        for record in records:
            if record not in (*get_args(LinearRecord), *get_args(RelaxedRecord)):
                raise TypeError(f"backward_rule: {record.__name__} is neither a linear record nor a relaxed one.")
            RULES[record, rows] = rule
        return rule

    return register


class Path:
    """The nodes from an output to its box, in the order of a backward walk; checked once, for any number of walks."""

    def __init__(self, target: Node, options: Options) -> None:
        target.check()
        self.target = target
        self.options = options
        self.order: list[Node] = []
        reached = {id(target)}
        for node in topological(target):
            if id(node) not in reached:  # only a fallback reads it
                continue
            self.order.append(node)
            node.check()
            require_gradients(node)
            if (type(node.record), Tensor) in RULES:
                require_separate_samples(node)
                reached.update(id(parent) for parent in node.inputs)
            elif not isinstance(node.record, Source) and options.fallback is None:
                refuse_missing_rule(node)
        self.consumers = Counter(id(parent) for node in self.order for parent in node.inputs)
        self.row_bytes = max(node.shape.numel() for node in self.order) * self.order[-1].radius.element_size()

    def lower(self, rows: Tensor | Sparse, bounds: PreActivationBounds) -> Tensor:  # [B, S, *] -> [B, S]
        """Lower bounds of the functions ``rows`` of the target."""
        return Walk(self, bounds).run(rows)

    def linear(self, rows: Tensor, bounds: PreActivationBounds) -> tuple[Tensor, Tensor]:  # [B, S, *box], [B, S]
        """Linear lower bounds of the functions ``rows`` [B, S, *] of the target, as functions of the box."""
        return Walk(self, bounds).run_to_source(rows)


class PreActivationBounds:
    """The bounds on which activations are relaxed: interval bounds, unless `replace` has set tighter ones."""

    def __init__(self) -> None:
        self._tightened: dict[int, tuple[Tensor, Tensor]] = {}
        self._lines: dict[int, Lines] = {}

    def of(self, node: Node) -> tuple[Tensor, Tensor]:
        """Center and radius [B, *] of a node."""
        return self._tightened.get(id(node)) or node.box

    def lines(self, node: Node, relaxation: str) -> Lines:
        """The relaxation of an element-wise function, computed once for all passes."""
        if id(node) not in self._lines:
            function = node.record_as(Elementwise).function
            self._lines[id(node)] = lines(function, *self.of(node.inputs[0]), relaxation)
        return self._lines[id(node)]

    def is_tightened(self, node: Node) -> bool:
        return id(node) in self._tightened

    def replace(self, node: Node, center: Tensor, radius: Tensor) -> None:  # [B, *], [B, *]
        self._tightened[id(node)] = (center, radius)


class Walk:
    """One pass from a target to its box. A node is visited once, after all its consumers, whose rows are added up."""

    def __init__(self, path: Path, bounds: PreActivationBounds) -> None:
        self.path = path
        self.options = path.options
        self.bounds = bounds
        self.constant: Tensor | None = None  # [B, S]
        self.bias_added: set[int] = set()  # layers whose bias is part of the constant already
        self._rows: dict[int, Any] = {}

    def run(self, rows: Tensor | Sparse) -> Tensor:  # [B, S]
        """Lower bounds on the box of the functions ``rows`` of the target."""
        for node, part in self._sources(rows):
            self.add_constant(_concretized(part, node.center, node.radius))
        assert self.constant is not None
        return self.constant.to(self.path.target.dtype)

    def run_to_source(self, rows: Tensor) -> tuple[Tensor, Tensor]:  # [B, S, *], [B, S]
        """Coefficients and constant of linear lower bounds, as functions of the box."""
        source, *others = (node for node in self.path.order if isinstance(node.record, Source))
        if others:
            raise ValueError(
                f"out: depends on {1 + len(others)} boxes, but a linear function has coefficients for one; join them "
                "into one box before the model."
            )
        found = self._sources(rows)
        shape = (*rows.shape[:2], *source.shape[1:])
        total = next((part for _, part in found), source.radius.new_zeros(shape))
        constant = source.radius.new_zeros(shape[:2]) if self.constant is None else self.constant
        return dense(total), constant

    def propagate_to(self, node: Node, rows: Any) -> None:
        """Add ``rows`` to those of ``node``, one of the inputs of the current node."""
        if isinstance(rows, Tensor):  # a constant of another dtype promotes them, but native passes read one dtype
            rows = rows.to(node.dtype)
        known = self._rows.get(id(node))
        self._rows[id(node)] = rows if known is None else known + rows

    def add_constant(self, constant: Tensor | None) -> None:  # [B, S]
        """Add to the constants of the functions; None adds nothing."""
        if constant is not None:
            self.constant = constant if self.constant is None else self.constant + constant

    def use_dense_rule(self, node: Node, rows: Tensor | Sparse) -> None:
        """Apply the rule for dense rows to sparse ones."""
        RULES[type(node.record), Tensor](self, node, dense(rows))

    def has_one_consumer(self, node: Node) -> bool:
        """Whether only one node reads this one, so that the rule of that node may handle both."""
        return self.path.consumers[id(node)] == 1

    def _sources(self, rows: Tensor | Sparse) -> list[tuple[Node, Any]]:
        self._rows[id(self.path.target)] = rows
        found = []
        for node in self.path.order:
            part = self._rows.pop(id(node), None)
            if part is None:  # a rule of its consumer has handled it
                continue
            if isinstance(node.record, Source):
                found.append((node, part))
            elif (type(node.record), Tensor) in RULES:
                RULES.get((type(node.record), type(part)), Walk.use_dense_rule)(self, node, part)
            else:  # options.fallback
                self.add_constant(_concretized(part, *self.bounds.of(node)))
        return found


def dense(rows: Tensor | Sparse) -> Tensor:
    """Rows as one tensor [B, S, *]."""
    return rows if isinstance(rows, Tensor) else rows.dense()


def _concretized(rows: Tensor | Sparse, center: Tensor, radius: Tensor) -> Tensor:  # [B, S]
    return crown_concretize(rows, center, radius) if isinstance(rows, Tensor) else rows.concretize(center, radius)
