"""`bound` and `linear_function`: the public functions of the backward walk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fastbound.crown import log_softmax, rules, sparse_rules  # noqa: F401  (registers the backward rules)
from fastbound.crown.options import Options
from fastbound.crown.tighten import tightened_bounds
from fastbound.crown.walk import Path, PreActivationBounds
from fastbound.domains.interval import Interval
from fastbound.domains.interval.lazy import lazy_interval
from fastbound.domains.records import Linear
from fastbound.domains.streams import require_tape
from fastbound.domains.tape import Node
from fastbound.ops import crown_concretize, crown_linear
from fastbound.spec import check_spec, specified


class LinearFunction(NamedTuple):
    """``coefficients . x + bias`` with coefficients [B, S, *box] and bias [B, S]."""

    coefficients: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:  # [B, *box] -> [B, S]
        """Its values at the points ``x``."""
        return (self.coefficients * x.unsqueeze(1)).flatten(2).sum(2) + self.bias


def bound(
    out: Interval,
    method: str = "crown-ibp",
    spec: Tensor | None = None,  # [B, S, K]
    *,
    relaxation: str = "adaptive",
    fallback: str | None = None,
    memory_budget: int | None = None,
) -> Interval:
    """Backward linear bounds of ``spec @ out``; ``fastbound.bound`` calls this for its backward methods.

    Args:
        out: an output with its tape.
        method: ``"crown-ibp"``: interval bounds inside, one backward pass, never intersected. ``"crown"``: the bounds
            before every non-linear function are tightened by backward passes of their own, and all bounds are
            intersected with IBP.
        spec: [B, S, K], or None for the outputs themselves, of any shape.
        relaxation: lower line of unstable ReLUs: ``"adaptive"``, ``"same-slope"``, ``"zero"``, ``"one"``, ``"soft"``,
            ``"soft-10"``; lines of slope 0 and 1 alone: ``"zero-tria"``, ``"one-tria"``; and the continuous
            ``"zero-c"``, ``"one-c"``, ``"zero-tria-c"``, ``"one-tria-c"``. See docs/methods/relaxations.md.
        fallback: ``"ibp"`` stops the walk at a function without a backward rule and uses that function's interval;
            None raises an error.
        memory_budget: bytes for the rows of one pass; if there are more rows, they run in chunks.

    Returns:
        `Interval` [B, S] (or of the shape of ``out``); ``lower`` and ``upper`` each cost their own backward pass, on
        first access, in the grad mode of this call.

    Raises:
        ValueError: an unknown method or option, a spec of the wrong shape, a budget below one row.
        MissingRuleError: a function without a backward rule, named with its module.
        TapeError: a freed tape, changed weights, or an output computed under no_grad whose bound needs gradients.

    Soundness: rounded to nearest. Gradients pass through slopes and pre-activation bounds; the choice of adaptive
    slopes is piecewise constant.
    Source: Zhang et al., 2018, arXiv 1811.00866; Zhang et al., 2020, arXiv 1906.06316;
    Xu et al., 2020, arXiv 2002.12920. The family of relaxations: Jovanovic et al., 2022, arXiv 2102.06700.
    """
    problem = _Problem(out, method, spec, Options(relaxation, fallback, memory_budget))
    return lazy_interval(problem.shape, problem.lower, problem.upper, problem.nominal)


def linear_function(
    out: Interval,
    spec: Tensor | None = None,  # [B, S, K]
    method: str = "crown-ibp",
    *,
    upper: bool = False,
    relaxation: str = "adaptive",
    memory_budget: int | None = None,
) -> LinearFunction:
    """The linear function of the input that bounds ``spec @ out`` from below, or from above with ``upper=True``.

    It holds at every point of the box: ``linear_function(out, spec)(x) <= spec @ model(x)``. Arguments, errors,
    soundness and source are those of `bound`; outputs of more dimensions are flattened to S rows if spec is None.
    Also raises ValueError if the output depends on several boxes.
    """
    problem = _Problem(out, method, spec, Options(relaxation, None, memory_budget))
    sign = -1.0 if upper else 1.0
    parts = [problem.path.linear(rows, problem.pre_activation_bounds()) for rows in problem.chunks(sign)]
    coefficients, bias = (torch.cat(part, 1) if len(parts) > 1 else part[0] for part in zip(*parts))
    return LinearFunction(sign * coefficients, sign * bias)


class _Problem:
    """Arguments of one call, checked; its lower and upper bounds share the tightened bounds before activations."""

    def __init__(self, out: Interval, method: str, spec: Tensor | None, options: Options) -> None:
        if method not in ("crown-ibp", "crown"):
            raise ValueError(f"method: wanted 'crown-ibp' or 'crown', got {method!r}.")
        require_tape(out)
        if out.dim() < 2:
            raise ValueError(f"out: wanted outputs [B, ...], got shape {tuple(out.shape)}; unsqueeze it to [B, 1].")
        if spec is not None:
            check_spec(spec, out.shape)
            spec = spec.to(out.radius)
        self.spec = spec
        self.full = method == "crown"
        self.path = Path(out.node, options)
        self.shape = out.shape if spec is None else spec.shape[:2]
        self._bounds: PreActivationBounds | None = None

    def pre_activation_bounds(self) -> PreActivationBounds:
        if self._bounds is None:
            self._bounds = tightened_bounds(self.path) if self.full else PreActivationBounds()
        return self._bounds

    def lower(self) -> Tensor:  # ``shape``
        return self._bound(1.0)

    def upper(self) -> Tensor:  # ``shape``
        return self._bound(-1.0)

    def _bound(self, sign: float) -> Tensor:
        """Lower bounds for sign 1, upper ones for sign -1, in ``shape``."""
        for node in self.path.order:
            node.check()
        bounds = self.pre_activation_bounds()
        parts = []
        for rows in self.chunks(sign):
            found = self.path.lower(rows, bounds)
            if self.full:
                found = torch.maximum(found, _interval_lower(self.path.target, rows))
            parts.append(found)
        lower = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        return (sign * lower).reshape(self.shape)

    def nominal(self) -> Tensor | None:
        clean = self.path.target.nominal
        return clean if clean is None or self.spec is None else specified(clean, self.spec)

    def chunks(self, sign: float) -> Iterator[Tensor]:
        """The rows to bound, times ``sign``, as many at a time as the budget allows."""
        node = self.path.target
        count = node.shape[1:].numel() if self.spec is None else self.spec.shape[1]
        options = self.path.options
        given = self.spec is not None and options.memory_budget is None  # the caller chose how many to pass
        size = count if given else options.rows_within(self.path.row_bytes)
        for start in range(0, max(count, 1), max(size, 1)):
            stop = min(start + size, count)
            yield _identity(node, start, stop, sign) if self.spec is None else sign * self.spec[:, start:stop]


def _identity(node: Node, start: int, stop: int, sign: float) -> Tensor:
    """Rows ``start`` to ``stop`` of the identity over the elements of a node, [B, S, *]."""
    rows = node.radius.new_zeros(stop - start, node.shape[1:].numel())
    rows.diagonal(start).fill_(sign)
    return rows.unflatten(1, node.shape[1:]).expand(node.shape[0], stop - start, *node.shape[1:])


def _interval_lower(node: Node, rows: Tensor) -> Tensor:  # [B, S, K] -> [B, S]
    """The interval bound of the rows, merged into the last layer if that is linear."""
    if isinstance(node.record, Linear):
        rows, bias = crown_linear(rows, node.record.weight, node.record.bias)
        node = node.inputs[0]
        found = crown_concretize(rows, node.center, node.radius)
        return found if bias is None else found + bias
    return crown_concretize(rows, node.center, node.radius)
