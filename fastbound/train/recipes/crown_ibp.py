"""Training by CROWN-IBP bounds, with or without loss fusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fastbound import losses
from fastbound.bounds import bound
from fastbound.domains.interval import Interval
from fastbound.domains.interval.lazy import lazy_interval
from fastbound.train.recipes.certified import CertifiedRecipe
from fastbound.train.recipes.fields import check_shares
from fastbound.train.recipes.step import Losses, Step, mixed
from fastbound.train.schedules import Scheduled, is_exactly, linear_in_eps


@dataclass(frozen=True, kw_only=True)
class CrownIBPRecipe(CertifiedRecipe):
    """Margins beta CROWN-IBP + (1 - beta) IBP, or one fused row a sample; kappa and beta linear in eps."""

    method: ClassVar[str] = "crown-ibp"
    summary: ClassVar[str] = "interval bounds inside, one backward pass for the margins"
    source: ClassVar[str] = "Zhang et al., 2019, arXiv 1906.06316; loss fusion: Xu et al., 2020, arXiv 2002.12920"

    kappa_start: float = 1.0
    kappa_end: float = 0.5
    beta_end: float = 0.0
    fuse_loss: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self, "kappa_start", "kappa_end", "beta_end")

    def weights(self, step: float, steps_per_epoch: int) -> dict[str, float]:
        eps, eps_max = self.eps(step, steps_per_epoch), self.eps_max()
        beta = linear_in_eps(eps, eps_max, 1.0, self.beta_end)
        return {
            **super().weights(step, steps_per_epoch),
            "kappa": linear_in_eps(eps, eps_max, self.kappa_start, self.kappa_end),
            # A share that float32 cannot tell from 0 is not worth a backward pass.
            "beta": beta if beta >= 1e-5 else 0.0,
        }

    def certified_loss(self, step: Step) -> Losses:
        kappa, beta = step.weights["kappa"], step.weights["beta"]
        out = self.bounded_output(step, kappa)
        if self.fuse_loss:
            robust = losses.fused_cross_entropy(out, step.labels, beta)
        else:
            robust = losses.robust_cross_entropy(blended(out, step.spec(), beta))
        return self.regularised(step, out, mixed(out, step.labels, robust, kappa))


def blended(out: Interval, spec: Tensor, beta: Scheduled) -> Interval:  # [B, K-1]
    """Margins beta CROWN-IBP + (1 - beta) IBP: a convex combination of two bounds is a bound."""
    if is_exactly(beta, 0):
        return bound(out, method="ibp", spec=spec)
    crown = bound(out, method="crown-ibp", spec=spec)
    if is_exactly(beta, 1):
        return crown
    ibp = bound(out, method="ibp", spec=spec)
    return lazy_interval(
        crown.shape,
        lower=lambda: beta * crown.lower + (1 - beta) * ibp.lower,
        upper=lambda: beta * crown.upper + (1 - beta) * ibp.upper,
        nominal=lambda: ibp.nominal,
    )
