"""Training by interval bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastbound import losses
from fastbound.bounds import bound
from fastbound.train.recipes.certified import CertifiedRecipe
from fastbound.train.recipes.fields import check_shares
from fastbound.train.recipes.step import Losses, Step, mixed
from fastbound.train.schedules import linear_in_step


@dataclass(frozen=True, kw_only=True)
class IBPRecipe(CertifiedRecipe):
    """kappa CE(clean) + (1 - kappa) CE(worst case by interval bounds); kappa linear in step over the ramp."""

    method: ClassVar[str] = "ibp"
    summary: ClassVar[str] = "interval bound propagation, margins elided into the last layer"
    source: ClassVar[str] = "Gowal et al., 2018, arXiv 1810.12715"

    kappa_start: float = 1.0
    kappa_end: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self, "kappa_start", "kappa_end")

    def weights(self, step: float, steps_per_epoch: int) -> dict[str, float]:
        kappa = linear_in_step(self.progress(step, steps_per_epoch), self.kappa_start, self.kappa_end)
        return {**super().weights(step, steps_per_epoch), "kappa": kappa}

    def certified_loss(self, step: Step) -> Losses:
        kappa = step.weights["kappa"]
        out = self.bounded_output(step, kappa)
        robust = losses.robust_cross_entropy(bound(out, method="ibp", spec=step.spec()))
        return self.regularised(step, out, mixed(out, step.labels, robust, kappa))
