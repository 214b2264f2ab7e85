"""Expressive losses: three ways from an adversarial loss (alpha 0) to the loss of interval bounds (alpha 1)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fastbound import losses
from fastbound.bounds import bound
from fastbound.domains.interval import Interval
from fastbound.domains.interval.box import box
from fastbound.train.recipes.adversarial import AdversarialRecipe
from fastbound.train.recipes.fields import check_shares
from fastbound.train.recipes.step import Losses, Step, uses_batch_statistics


@dataclass(frozen=True, kw_only=True)
class ExpressiveRecipe(AdversarialRecipe):
    """One forward pass with the adversarial point as the clean stream of the box, so that BatchNorm takes its
    statistics from the adversarial batch, for the bounds too. `l1` multiplies the absolute sum of the weights of linear
    layers and convolutions. Both follow the authors' code."""

    attack_steps: int = 1
    attack_step: float = 10.0
    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self, "alpha")

    def certified_loss(self, step: Step) -> Losses:
        point = self.attacked(step)
        if uses_batch_statistics(step.model):
            # Running statistics see the clean batch, and then the adversarial one.
            with torch.no_grad():
                step.model(step.x)
        out = self.propagated(step, box(*self.ends(step, self.radius(step)), nominal=point))
        assert out.nominal is not None  # the box carries the adversarial point
        margins = bound(out, method="ibp", spec=step.spec())
        robust, adversarial = losses.robust_cross_entropy(margins), F.cross_entropy(out.nominal, step.labels)
        parts = {"robust_loss": robust.detach(), "adversarial_loss": adversarial.detach()}
        return self.regularised(step, out, {"loss": self.combined(margins, robust, adversarial), **parts})

    @abstractmethod
    def combined(
        self,
        margins: Interval,  # [B, K-1]: lower by intervals, nominal at the adversarial point
        robust: Tensor,  # []
        adversarial: Tensor,  # []
    ) -> Tensor:
        """The loss of one step."""


_SOURCE = "De Palma et al., 2024, arXiv 2305.13991"


@dataclass(frozen=True, kw_only=True)
class MTLIBPRecipe(ExpressiveRecipe):
    """alpha CE(worst case by interval bounds) + (1 - alpha) CE(adversarial point)."""

    method: ClassVar[str] = "mtl-ibp"
    summary: ClassVar[str] = "weighted sum of the adversarial and the IBP loss"
    source: ClassVar[str] = _SOURCE

    def combined(self, margins: Interval, robust: Tensor, adversarial: Tensor) -> Tensor:
        return self.alpha * robust + (1 - self.alpha) * adversarial


@dataclass(frozen=True, kw_only=True)
class CCIBPRecipe(ExpressiveRecipe):
    """CE of the margins alpha IBP + (1 - alpha) adversarial."""

    method: ClassVar[str] = "cc-ibp"
    summary: ClassVar[str] = "cross-entropy of a weighted sum of adversarial and IBP margins"
    source: ClassVar[str] = _SOURCE

    def combined(self, margins: Interval, robust: Tensor, adversarial: Tensor) -> Tensor:
        assert margins.nominal is not None  # the box carries the adversarial point
        return losses.margin_cross_entropy(self.alpha * margins.lower + (1 - self.alpha) * margins.nominal)


@dataclass(frozen=True, kw_only=True)
class ExpIBPRecipe(ExpressiveRecipe):
    """CE(worst case by interval bounds)^alpha CE(adversarial point)^(1 - alpha), each the mean of the batch."""

    method: ClassVar[str] = "exp-ibp"
    summary: ClassVar[str] = "weighted geometric mean of the adversarial and the IBP loss"
    source: ClassVar[str] = _SOURCE

    def combined(self, margins: Interval, robust: Tensor, adversarial: Tensor) -> Tensor:
        # A loss that rounds to 0 would have an infinite gradient.
        tiny = torch.finfo(robust.dtype).tiny
        return robust.clamp(min=tiny) ** self.alpha * adversarial.clamp(min=tiny) ** (1 - self.alpha)
