"""`bound`: bounds on a specification of a model's outputs, by interval or backward propagation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastbound import crown
from fastbound.domains.interval import Interval
from fastbound.domains.interval.lazy import lazy_interval
from fastbound.domains.records import Linear, LogSoftmax, Source
from fastbound.domains.singleprop import NOT_A_BOUND, SingleProp
from fastbound.domains.streams import Streams, require_tape
from fastbound.domains.tape import NO_TAPE, Node, Tape, topological
from fastbound.domains.zonotope import zonotope
from fastbound.methods import METHODS, check_method
from fastbound.ops import interval_margin
from fastbound.ops.autocast import kept_from_autocast
from fastbound.primitives.interval_margin import other_classes
from fastbound.spec import check_spec, converted, margin_labels, specified


def bound(
    model: nn.Module | Callable[[Any], Any] | Streams,
    box: Streams | None = None,
    method: str = "ibp",
    spec: Tensor | None = None,
    **options: Any,
) -> Interval:
    """Bounds on ``spec @ model(x)`` for all x in the box.

    Args:
        model: a module (or function) to run on ``box``, or the value that it returned, without ``box``.
        box: input box from `linf_box` or `box`, or a `zonotope`, which takes method ``"ibp"``: its error terms go
            through the specification, its remainder through the merged layer.
        method: ``"ibp"`` (intervals), ``"crown-ibp"`` (one backward pass over interval relaxations, not intersected
            with them) or ``"crown"`` (backward bounds for every layer, intersected with IBP); or the name of a
            relaxation: a zonotope's, such as ``"deepz"``, or a pair of lines, such as ``"crown-0-c"``. See
            `fastbound.methods` and docs/methods/relaxations.md.
        spec: [B, S, K], merged into a last linear layer; None for the outputs themselves.
        options: passed to the backward methods (see `fastbound.crown`) or to `zonotope`.

    Returns:
        `Interval` [B, S] (the shape of the output where spec is None). ``lower`` and ``upper`` are each computed on
        first access, in the grad mode of this call.

    Raises:
        TypeError, ValueError: arguments of the wrong kind or shape. MissingRuleError: an operator without a rule.
        TapeError: the tape was freed, or its weights have changed.

    Soundness: rounded to nearest.
    """
    check_method("method", method)
    if isinstance(model, SingleProp) or isinstance(box, SingleProp):
        raise TypeError(f"bound: {NOT_A_BOUND}.")
    method, relaxation = METHODS[method]
    if method == "zonotope":
        if not isinstance(box, Interval):
            raise TypeError(f"bound: {relaxation!r} begins at the box, so it wants (model, box); got an output alone.")
        assert relaxation is not None
        box, method, options = zonotope(box, relaxation, **options), "ibp", {}
    elif relaxation is not None:
        options = {"relaxation": relaxation, **options}
    out = _output(model, box, keeps_tape=method != "ibp" or torch.is_grad_enabled())
    if spec is not None:
        check_spec(spec, out.shape)
        spec = converted(spec, out.dtype, out.device)
        if isinstance(out.node.record, LogSoftmax) and _adds_up_to_0(spec):
            out = _logits(out)
    if method != "ibp":
        if not isinstance(out, Interval):
            raise TypeError(
                f"method: {method!r} walks back over an Interval, got a {type(out).__name__}; leave it out."
            )
        return crown.bound(out, method, spec, **options)
    if options:
        raise TypeError(f"bound: method 'ibp' takes no options, got {', '.join(options)}.")
    if spec is not None:
        return _specified(out, spec)
    if isinstance(out, Interval):
        return out
    return _bounds(out, out.shape, lambda node: (node.center, node.radius), lambda x: x)


def _adds_up_to_0(spec: Tensor) -> bool:  # [B, S, K]
    """Whether every row does; of other devices and under compilation, only if the spec is known to hold margins."""
    if margin_labels(spec) is not None:
        return True
    readable = spec.device.type == "cpu" and not torch.compiler.is_compiling()
    return readable and bool((spec.detach().sum(2) == 0).all())


def _logits(out: Streams) -> Streams:
    """The value before a last logarithm of a softmax, which differs by one number for all classes of a sample."""
    node = out.node
    return out.handle(node.inputs[0]) if isinstance(node.record, LogSoftmax) and node.inputs else out


def _output(model: Any, box: Streams | None, keeps_tape: bool) -> Streams:
    if isinstance(model, Streams):
        if box is not None:
            raise TypeError("bound: got an output and a box; pass either (model, box) or (out).")
        require_tape(model)
        for node in topological(model.node):
            node.check()
        return model
    if not callable(model) or not isinstance(box, Streams):
        raise TypeError(
            f"bound: wanted (model, box) or (out), got ({type(model).__name__}, {type(box).__name__}); make a box with "
            "fastbound.linf_box(x, eps)."
        )
    if isinstance(box, Interval) and (box.node.tape is NO_TAPE or not keeps_tape):
        box = _source(box, keeps_tape)
    out = model(box)
    if not isinstance(out, type(box)):
        raise TypeError(
            f"bound: the model returned {type(out).__name__}, wanted one {type(box).__name__}; bound each output alone."
        )
    return out


def _source(box: Interval, keeps_tape: bool) -> Interval:
    """The same box at the start of a new tape: a copied box has none, and some calls keep none."""
    return box.handle(Node(Source(), (), box.node.streams, Tape(keeps=keeps_tape)))


def _specified(out: Streams, spec: Tensor) -> Interval:
    """Interval bounds on ``spec @ out``, with spec [B, S, K] merged into a last linear layer if there is one."""
    labels = margin_labels(spec)
    if labels is not None:
        return margins(out, labels)

    @kept_from_autocast
    def elided(node: Node) -> tuple[Tensor, Tensor]:
        layer = _last_linear(node)
        if layer is None:
            return specified(node.center, spec), specified(node.radius, spec.abs())
        parent = node.inputs[0]
        weight = spec @ layer.weight  # [B, S, D]
        center = specified(parent.center, weight)
        if layer.bias is not None:
            center = center + spec @ layer.bias
        return center, specified(parent.radius, weight.abs())

    return _bounds(out, spec.shape[:2], elided, lambda clean: specified(clean, spec))


def margins(out: Streams, labels: Tensor) -> Interval:
    """Interval bounds on the margins z_y - z_j of logits [B, K], j != y in increasing order, without a specification.

    ``labels`` [B] are int64 and in range; the margins are [B, K - 1].
    """
    batch, classes = out.shape
    out = _logits(out)
    own, others = labels.unsqueeze(1), other_classes(labels, classes)

    def elided(node: Node) -> tuple[Tensor, Tensor]:
        layer, center = _last_linear(node), difference(node.center)
        if layer is None:
            return center, node.radius.gather(1, own) + node.radius.gather(1, others)
        return center, interval_margin(node.inputs[0].radius, layer.weight, labels)

    def difference(x: Tensor) -> Tensor:  # [B, K] -> [B, K - 1]
        return x.gather(1, own) - x.gather(1, others)

    return _bounds(out, torch.Size((batch, classes - 1)), elided, difference)


def _bounds(
    out: Streams,
    shape: torch.Size,
    elided: Callable[[Node], tuple[Tensor, Tensor]],  # center and radius, each of ``shape``
    of_clean: Callable[[Tensor], Tensor],  # [B, K] -> ``shape``, linear
) -> Interval:
    require_tape(out)
    node = out.node
    node.check()
    cache: dict[str, tuple[Tensor, Tensor]] = {}

    def streams() -> tuple[Tensor, Tensor]:
        node.check()
        if "streams" not in cache:
            center, radius = elided(node)
            of_error_terms = out.error_term_width(of_clean)
            cache["streams"] = center, radius if of_error_terms is None else radius + of_error_terms
        return cache["streams"]

    def lower() -> Tensor:
        center, radius = streams()
        return center - radius

    def upper() -> Tensor:
        center, radius = streams()
        return center + radius

    def nominal() -> Tensor | None:
        clean = node.nominal
        return None if clean is None else of_clean(clean)

    return lazy_interval(shape, lower, upper, nominal)


def _last_linear(node: Node) -> Linear | None:
    """The linear layer that produced a node, if a specification can be merged into it."""
    record = node.record
    return record if isinstance(record, Linear) and node.inputs and node.inputs[0].radius.dim() == 2 else None
