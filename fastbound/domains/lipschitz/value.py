"""`Lipschitz`: clean activations with a Lipschitz constant that is computed from the graph of layers when read."""

from __future__ import annotations

from torch import Tensor

from fastbound.domains.checks import require_finite, require_floating
from fastbound.domains.lipschitz.constants import certified, estimate
from fastbound.domains.lipschitz.graph import Factor, Flow, Input, LipschitzNode
from fastbound.domains.lipschitz.margins import bottom_logit, certified_margins
from fastbound.domains.lipschitz.state import LipschitzState
from fastbound.domains.value import Value


class Lipschitz(Value):
    """Clean activations [B, ...] with one l2 Lipschitz constant: ||out(x) - out(x')|| <= constant ||x - x'|| for all
    x and x', in the units of the input.

    Any torch function with a rule accepts it: linear layers, convolutions, pooling, ReLU, `fastbound.nn.MinMax`, sums
    of values, shape functions, sums and products with constants. Every function must treat the samples independently.

    Soundness: `constant` is a training estimate from below, `certified_constant()` an upper bound.

    Raises:
        MissingRuleError: for a function or attribute without a rule, naming it and the module.
        NotImplementedError: for BatchNorm and other functions without a useful constant; it says what to use instead.
    """

    @property
    def node(self) -> LipschitzNode:
        return self._node

    @property
    def nominal(self) -> Tensor:
        """Clean activations [B, ...]."""
        return self.node.nominal

    @property
    def constant(self) -> Tensor:
        """Estimate [] of the Lipschitz constant, differentiable, by power iteration, which converges to the product
        of the layers' norms from below. For training only, not for certification."""
        return estimate(self.node)

    def certified_constant(self) -> float:
        """Upper bound of the Lipschitz constant of the network in real arithmetic, all rounding included.

        Soundness: a proof for each layer's weights in float64, see `fastbound.domains.lipschitz.certificate`.

        Raises ValueError for weights with NaN or infinity.
        """
        return certified(self.node)

    def bottom_logit(self, eps: float | Tensor) -> Tensor:
        """The largest value [B] that another class can reach within eps, relative to the predicted class.

        If it exceeds the largest logit, the prediction is rejected. Differentiable.

        Args:
            eps: l2 radius in the units of the input, a number or a tensor [].

        Raises ValueError unless the value is logits [B, K], K >= 2.

        Soundness: an estimate, for training.
        """
        self._require_logits("bottom_logit")
        return bottom_logit(self.node, eps)

    def certified_margins(self, labels: Tensor, eps: float) -> Tensor:  # labels [B]
        """Lower bounds [B, K - 1] in float64 of z_y - z_i for the classes i != y in increasing order, in the l2 ball of
        radius eps around each input.

        Raises ValueError unless the value is logits [B, K] and the labels are classes.

        Soundness: constants as of `certified_constant`; logits rounded to nearest.
        """
        self._require_logits("certified_margins")
        return certified_margins(self.node, labels, eps)

    def _require_logits(self, name: str) -> None:
        if self.dim() != 2 or self.shape[1] < 2:
            raise ValueError(f"{name}: wanted logits [B, K] with at least 2 classes, got shape {tuple(self.shape)}.")

    def mapped_to(self, nominal: Tensor, gain: float | Tensor = 1.0) -> Lipschitz:
        """The value of a function with Lipschitz constant ``gain`` that maps this one to ``nominal`` [B, ...].

        For use in rules.
        """
        return self.handle(LipschitzNode(nominal, Factor(gain), (self.node,), self.node.flow))


def lipschitz(x: Tensor, state: LipschitzState | None = None) -> Lipschitz:  # [B, ...]
    """The input of a network whose Lipschitz constant, in the l2 norm of one sample, is wanted.

    Args:
        x: inputs [B, ...], float32 or float64.
        state: power iterates (and certificates) of earlier passes of the same model; with None every layer does at
            least 50 power iterations.

    Returns:
        A `Lipschitz` [B, ...] to pass through a model: ``out.nominal`` [B, ...], ``out.constant``,
        ``out.certified_constant()``.

    Raises:
        TypeError: x is no floating-point tensor, state no LipschitzState. ValueError: x is empty, or holds NaN or
        infinity.

    Source: Leino, Wang & Fredrikson, ICML 2021, arXiv 2102.08452.
    """
    require_floating("x", x)
    if x.dim() < 1 or x.shape[0] == 0:
        raise ValueError(f"x: wanted a non-empty batch [B, ...], got shape {tuple(x.shape)}.")
    require_finite("x", x)
    if state is not None and not isinstance(state, LipschitzState):
        raise TypeError(f"state: wanted a fastbound.LipschitzState, got {type(state).__name__}.")
    return Lipschitz(LipschitzNode(x, Input(), (), Flow(state or LipschitzState())))
