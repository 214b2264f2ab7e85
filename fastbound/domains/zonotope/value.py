"""`Zonotope`: affine forms in shared error terms, which track how outputs depend on each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastbound.domains.interval.value import Interval
from fastbound.domains.records import Opaque, Record, Source
from fastbound.domains.rules import out_of_place
from fastbound.domains.streams import Streams
from fastbound.domains.tape import Node, Tape, detached_node, require_separate_samples
from fastbound.domains.zonotope.error_terms import Plan, Terms, dense, new_terms, propagated_terms, size
from fastbound.domains.zonotope.relaxations import find_relaxation

DEFAULT_BUDGET = 1 << 30


class Zonotope(Streams):
    """All points ``center + sum_m e_m E_m + remainder eta`` with every e and eta in [-1, 1].

    The error terms E are shared by all elements, so a linear layer loses nothing; the remainder is an interval. Any
    torch function with a rule accepts a zonotope, as it does an `Interval`; ``out.lower``, ``out.upper``,
    ``out.center``, ``out.radius``, ``out.remainder`` and ``out.nominal`` are tensors [B, ...] in the dtype of the
    network, ``out.errors`` is [M, B, ...].

    Soundness: rounded to nearest; with training-mode BatchNorm for the statistics of the nominal batch.
    Source: Mirman et al., 2018 (hybrid zonotopes); Singh et al., 2018 (DeepZ); Jovanovic et al., 2022, arXiv
    2102.06700.

    Raises:
        MissingRuleError: for a function or attribute without a rule, naming it and the module.
    """

    direct: ClassVar[bool] = False

    @property
    def terms(self) -> Terms:
        return self.node.terms

    @property
    def center(self) -> Tensor:
        """Midpoint [B, ...]."""
        return self.node.center

    @property
    def remainder(self) -> Tensor:
        """Half-width [B, ...] in addition to the error terms."""
        return self.node.radius

    @property
    def errors(self) -> Tensor:
        """The error terms [M, B, ...], those of the box first, then in the order of their creation."""
        blocks = [dense(block) for block in self.terms.blocks.values()]
        return torch.cat(blocks) if blocks else self.remainder.new_zeros(0, *self.shape)

    @property
    def radius(self) -> Tensor:
        """Half-width [B, ...], >= 0: that of all error terms and the remainder."""
        return total_radius(self.node)

    @property
    def lower(self) -> Tensor:
        """Lower bound [B, ...]."""
        return self.center - self.radius

    @property
    def upper(self) -> Tensor:
        """Upper bound [B, ...]."""
        return self.center + self.radius

    @staticmethod
    def from_bounds(lower: Tensor, upper: Tensor, nominal: Tensor | None = None) -> Zonotope:
        """The interval [lower, upper] as remainder, without error terms, for use in a rule; each [B, ...]."""
        return Zonotope(Interval.from_bounds(lower, upper, nominal).node)

    def on_node(self, node: Node, inputs: tuple[Streams, ...]) -> Zonotope:
        """The value on a new node, with the error terms of its inputs propagated through its record."""
        plan = self.terms.plan
        if isinstance(node.record, Opaque):  # its rule returned bounds without terms
            node.terms = Terms(plan)
            return Zonotope(node)
        require_separate_samples(node)
        blocks, outside = propagated_terms(node, [x.node for x in inputs])
        if outside is not None:
            # The remainder includes the terms beyond the budget, so no specification may be merged into this layer.
            record = Opaque(f"{type(node.record).__name__} beyond the budget", "")
            node = Node(record, (), (node.stack, node.radius + outside), node.tape)
        node.terms = Terms(plan, blocks)
        return Zonotope(node)

    def error_term_width(self, function: Callable[[Tensor], Tensor]) -> Tensor | None:
        return self.terms.error_term_width(function)

    @classmethod
    def _finish(cls, function: Callable[..., Any], result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the function on the interval bounds too, if the relaxation uses them."""
        result = super()._finish(function, result, args, kwargs)
        outputs = result if isinstance(result, tuple) else (result,)
        if outputs and isinstance(outputs[0], Zonotope) and find_relaxation(outputs[0].terms.plan.relaxation).by_box:
            function = out_of_place(function) or function
            intervals = Interval.__torch_function__(function, (Interval,), _intervals(args), _intervals(kwargs))
            intervals = intervals if isinstance(intervals, tuple) else (intervals,)
            for output, interval in zip(outputs, intervals, strict=True):
                output.terms.interval = interval
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Zonotope:
        stack, radius = (t.detach().clone() for t in self.node.streams)
        return _rebuild(stack, radius, self.terms.detached())

    def __reduce__(self) -> Any:
        stack, radius = (t.detach() for t in self.node.streams)
        return _rebuild, (stack, radius, self.terms.detached())

    def __repr__(self) -> str:
        return (
            f"Zonotope(shape={tuple(self.shape)}, relaxation={self.terms.plan.relaxation!r}, "
            f"error terms={sum(map(size, self.terms.blocks.values()))}, dtype={self.dtype}, device={self.device})"
        )


def zonotope(
    box: Interval, relaxation: str = "deepz", *, budget: int = DEFAULT_BUDGET, remainder: bool = True
) -> Zonotope:
    """The zonotope of a box, with an error term for every input of width > 0, to pass through a model.

    Args:
        box: from `linf_box` or `box`, before any layer; gradients flow into it.
        relaxation: how non-linear functions are covered: ``"box"``, ``"hbox"``, ``"zbox"``, ``"deepz"``, ``"hzono"``,
            ``"diag"``, ``"diag-c"``, ``"switch"``, ``"soft"`` or ``"deepz-ibp-r"``; see docs/methods/relaxations.md.
        budget: bytes for the error terms of one value; a training step keeps those of all layers.
        remainder: whether terms beyond the budget, the newest and smallest first, join the remainder, with one
            warning; with False they are an error.

    Returns:
        A `Zonotope` [B, ...].

    Raises:
        TypeError: not an Interval. ValueError: an unknown relaxation, a budget that is not a positive number of bytes,
        a box that has been through a layer; later, in the model, terms beyond the budget if ``remainder`` is False.

    Soundness: rounded to nearest.
    Source: Jovanovic et al., 2022, arXiv 2102.06700.
    """
    if not isinstance(box, Interval):
        raise TypeError(f"box: wanted an Interval from fastbound.linf_box, got {type(box).__name__}.")
    if not isinstance(box.node.record, (Source, Opaque)):
        raise ValueError("box: wanted the input box itself, got an Interval that has been through a layer.")
    chosen = find_relaxation(relaxation)
    if not isinstance(budget, int) or budget <= 0:
        raise ValueError(f"budget: wanted a positive number of bytes, got {budget!r}.")
    node = Node(Source(), (), box.node.streams, Tape(keeps=False))
    terms = Terms(Plan(relaxation, budget, remainder))
    if chosen.by_box:
        terms.interval = Interval(Node(Source(), (), (node.stack[-1:], node.radius), node.tape))
    if chosen.starts_as_terms:
        terms.blocks[terms.plan.new_origin()] = new_terms(node.radius)
        node = Node(Source(), (), (node.stack, torch.zeros_like(node.radius)), node.tape)
    node.terms = terms
    return Zonotope(node)


def relaxed(
    input: Zonotope,
    function: Callable[[Tensor], Tensor],
    slope: Tensor,  # [B, *S]
    offset: Tensor,  # [B, *S]
    width: Tensor,  # [B, *S], >= 0
    record: Record,
) -> Zonotope:
    """``function(x)``, which lies in ``slope x + offset -+ width`` for all x in the bounds of ``input``."""
    node, terms = input.node, input.terms
    center = torch.addcmul(offset, slope, node.center)
    nominal = node.nominal
    stack = center.unsqueeze(0) if nominal is None else torch.stack((function(nominal), center))
    radius, blocks = node.radius * slope.abs(), terms.scaled(slope)
    if find_relaxation(terms.plan.relaxation).makes_terms:
        blocks[terms.plan.new_origin()] = new_terms(width)
    else:
        radius = radius + width
    result = Node(record, (node,), (stack, radius), node.tape)
    result.terms = Terms(terms.plan, blocks)
    return Zonotope(result)


def relaxation_bounds(input: Zonotope) -> tuple[Tensor, Tensor]:  # [B, *S], [B, *S]
    """The bounds on which rules relax: those of the zonotope, or of the interval domain if the relaxation uses them."""
    bounds = input if input.terms.interval is None else input.terms.interval
    center, radius = bounds.center, bounds.radius
    return center - radius, center + radius


def total_radius(node: Node) -> Tensor:  # [B, *S]
    width = node.terms.half_width()
    return node.radius if width is None else node.radius + width


def _intervals(value: Any) -> Any:
    """Arguments with zonotopes replaced by their interval bounds."""
    if isinstance(value, Zonotope):
        return value.terms.interval
    if isinstance(value, (tuple, list)):
        return type(value)(_intervals(item) for item in value)
    return {name: _intervals(item) for name, item in value.items()} if isinstance(value, dict) else value


def _rebuild(stack: Tensor, radius: Tensor, terms: Terms) -> Zonotope:
    node = detached_node(stack, radius)
    node.terms = terms
    return Zonotope(node)
