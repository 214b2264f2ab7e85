"""SABR: interval bounds of a small box around an adversarial point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from fastbound import losses
from fastbound.bounds import bound
from fastbound.domains.interval.box import box
from fastbound.domains.interval.shrunk import ShrunkInterval
from fastbound.train.penalties import l1_of_parameters
from fastbound.train.recipes.adversarial import AdversarialRecipe
from fastbound.train.recipes.fields import check_shares
from fastbound.train.recipes.step import Losses, Step, uses_batch_statistics
from fastbound.train.schedules import Scheduled


@dataclass(frozen=True, kw_only=True)
class SABRRecipe(AdversarialRecipe):
    """Worst case by interval bounds over a box of `box_ratio` times the radius, around an adversarial point.

    This is no bound on the box of the step. BatchNorm takes its statistics from the clean inputs; `relu_shrink` shrinks
    the intervals of unstable ReLUs further (`ShrunkInterval`); `l1` multiplies the absolute sum of all parameters, as
    in the authors' code.
    """

    method: ClassVar[str] = "sabr"
    summary: ClassVar[str] = "interval bounds of a small box around an adversarial point"
    source: ClassVar[str] = "Mueller et al., 2023, arXiv 2210.04871"

    attack_step: float = 0.5
    attack_decays: tuple[float, ...] = (0.5, 0.8, 0.9)
    box_ratio: float = 0.4
    relu_shrink: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self, "box_ratio", "relu_shrink")

    def l1_of(self, model: nn.Module) -> Tensor:  # []
        return l1_of_parameters(model)

    def certified_loss(self, step: Step) -> Losses:
        eps = self.radius(step)
        lower, upper = small_box(self.attacked(step), *self.ends(step, eps), self.box_ratio * eps)
        small = box(lower, upper, nominal=step.x if uses_batch_statistics(step.model) else None)
        if self.relu_shrink > 0:
            small = ShrunkInterval(small, self.relu_shrink)
        out = self.propagated(step, small)
        robust = losses.robust_cross_entropy(bound(out, method="ibp", spec=step.spec()))
        return self.regularised(step, out, {"loss": robust, "robust_loss": robust.detach()})


def small_box(
    point: Tensor,  # [B, ...]
    lower: Tensor,  # [B, ...]
    upper: Tensor,  # [B, ...]
    radius: Scheduled,
) -> tuple[Tensor, Tensor]:  # [B, ...] each
    """The box of `radius` whose center is as near to `point` as [lower, upper] allows; cut to [lower, upper] where that
    is narrower than 2 `radius` (the authors' code cuts it to the range of pixels, so there it can leave the box)."""
    center = torch.minimum(torch.maximum(point, lower + radius), upper - radius)
    return torch.maximum(center - radius, lower), torch.minimum(center + radius, upper)
