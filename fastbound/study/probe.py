"""`Probe`: margins of a few images as a function of the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fastbound.bounds import bound
from fastbound.domains.interval import Interval
from fastbound.domains.interval.box import linf_box
from fastbound.losses import robust_cross_entropy
from fastbound.spec import margin_spec

Weights = Mapping[str, Tensor]


class Probe:
    """Bounds on the margins of fixed images by any method, while the weights change.

    It works on a copy of the model in float64 and evaluation mode, in which weight steps too small for float32 show.

    Args:
        model: any module that `fastbound.bound` takes; it is not changed.
        x: images [B, ...] in [0, 1], on the device of the model. labels: [B], int64.
        eps: radius of the boxes, which end at 0 and 1.
        transform: applied to the box before the model, for example to make a `LoosenedInterval` of it.

    Soundness: rounded to nearest.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor,
        eps: float,
        transform: Callable[[Interval], Interval] = lambda box: box,
    ) -> None:
        self.model = copy.deepcopy(model).double().eval()
        self.weights: dict[str, Tensor] = {name: w.detach() for name, w in self.model.named_parameters()}
        box = linf_box(x.double(), eps, 0.0, 1.0, nominal=False)
        self.box = transform(box)
        with torch.no_grad():
            self.spec = margin_spec(labels, self.model(x.double()).shape[1])

    def bounds(self, method: str, weights: Weights) -> Interval:  # [B, K - 1]
        """The margins by ``method`` of the model with ``weights``; weights that are not named stay as they are."""
        with torch.no_grad():
            return bound(lambda box: functional_call(self.model, dict(weights), (box,)), self.box, method, self.spec)

    def margins(self, method: str, weights: Weights) -> Tensor:  # [B, K - 1]
        """The lower ends of `bounds`."""
        return self.bounds(method, weights).lower

    def loss(self, method: str, weights: Weights) -> float:
        """The certified loss: the mean worst-case cross-entropy by ``method``."""
        return float(robust_cross_entropy(self.bounds(method, weights)))
