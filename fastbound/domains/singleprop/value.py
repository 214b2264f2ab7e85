"""`SingleProp`: the clean activations and one radius around them, a cheap surrogate of interval bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastbound.domains.interval.box import linf_box
from fastbound.domains.records import Source
from fastbound.domains.streams import Streams
from fastbound.domains.tape import Node, Tape, detached_node
from fastbound.errors import MissingRuleError
from fastbound.primitives.singleprop_norm_relu import VARIANTS

NOT_A_BOUND = (
    "SingleProp is a training surrogate and not a bound; certify with IBP: "
    "fastbound.bound(model, fastbound.linf_box(x, eps), method='ibp')"
)


@dataclass
class _Tensors:
    nominal: Tensor
    radius: Tensor


class SingleProp(Streams):
    """Clean activations z and a radius v >= 0 around them: ``out.nominal`` and ``out.radius``, tensors [B, ...].

    It has no lower and no upper: the true outputs may leave [z - v, z + v]. See `singleprop`, which makes one.

    Raises:
        MissingRuleError: for a function or attribute without a rule, naming it and the module.
    """

    settings = ("variant",)
    # Data-parallel wrappers look for tensors in dataclass fields; these are read from the properties below.
    __dataclass_fields__ = _Tensors.__dataclass_fields__

    def __init__(self, node: Node, variant: str = "zero") -> None:
        super().__init__(node)
        self.variant = variant

    def handle(self, node: Node) -> SingleProp:
        return SingleProp(node, self.variant)

    def __reduce__(self) -> tuple[Callable[..., SingleProp], tuple[Tensor, Tensor, str]]:  # type: ignore[override]
        stack, radius = (t.detach() for t in self.node.streams)
        return _rebuild, (stack, radius, self.variant)

    @property
    def nominal(self) -> Tensor:
        """Clean activations [B, ...]: the only stream of the stack."""
        return self.node.stack.squeeze(0)

    @property
    def carries_nominal(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"SingleProp(shape={tuple(self.shape)}, dtype={self.dtype}, device={self.device}, {self.variant})"

    def __getattr__(self, name: str) -> Any:
        if name in ("lower", "upper", "center"):
            raise MissingRuleError(f"SingleProp has no {name!r}: {NOT_A_BOUND}.")
        return super().__getattr__(name)


def singleprop(x: Tensor, eps: float | Tensor, variant: str = "zero") -> SingleProp:  # x [B, ...]
    """A training surrogate and not a bound: clean activations with a radius that a true output may leave.

    One neuron shows it: at z = 0 with v = 1 the variant ``"zero"`` claims relu(z) in [-0.5, 0.5], ``"fast-lin"``
    [-0.75, 0.75], and relu reaches 1. In return a layer costs two products, instead of three for intervals with a
    clean stream.

    Args:
        x: inputs [B, ...], float32 or float64.
        eps: radius in the units of ``x``, a number or a tensor that broadcasts to x. The ball is not clipped: it
            reaches as far to either side.
        variant: the radius of an unstable neuron after its ReLU: ``"zero"`` (z + v) / 2, ``"fast-lin"``
            3 v / 4 + z / 2 - z^2 / (4 v + 1e-4).

    Returns:
        A `SingleProp` [B, ...] to pass through a model; train on it with `fastbound.losses.singleprop_cross_entropy`.
        ReLU, max-pooling and linear functions (layers, BatchNorm, average pooling, sums, shapes) have rules.

    Raises:
        TypeError: x is no floating-point tensor. ValueError: an unknown variant; eps negative, NaN or of a shape that
        does not broadcast; x empty or with NaN.

    Soundness: none. Certify with `fastbound.certify`, whose bounds are IBP's.
    Source: Boopathy et al., 2021, arXiv 2102.01208.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant: wanted one of {', '.join(VARIANTS)}, got {variant!r}.")
    streams = linf_box(x, eps, nominal=False).node.streams
    return SingleProp(Node(Source(), (), streams, Tape(keeps=False)), variant)


def _rebuild(stack: Tensor, radius: Tensor, variant: str) -> SingleProp:
    return SingleProp(detached_node(stack, radius), variant)
