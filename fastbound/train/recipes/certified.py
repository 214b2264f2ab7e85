"""Base of the methods that train with bounds over a box."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from fastbound.domains.interval import Interval
from fastbound.domains.interval.box import linf_box
from fastbound.train.recipes.fields import check_positive
from fastbound.train.recipes.ramped import RampedRecipe
from fastbound.train.recipes.step import Losses, Step, uses_batch_statistics
from fastbound.train.regularisers import warmup_regularisers, with_moments
from fastbound.train.schedules import Scheduled, is_exactly, linear_in_eps

SMALLEST_WIDTH = 1e-6


@dataclass(frozen=True, kw_only=True)
class CertifiedRecipe(RampedRecipe):
    """A recipe that bounds the outputs over boxes of a growing radius; `clip_box` clips the boxes to [0, 1].

    `regularisation` is the weight of the regularisers of short warm-up at radius 0; it falls to 0 as the radius grows.
    `tolerance` is passed to `warmup_regularisers`.
    """

    clip_box: bool = True
    regularisation: float = 0.0
    tolerance: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.regularisation < 0:
            raise ValueError(f"regularisation: wanted a weight of 0 or more, got {self.regularisation}.")
        check_positive(self, "tolerance")

    def weights(self, step: float, steps_per_epoch: int) -> dict[str, float]:
        if self.regularisation == 0:
            return {}
        return {
            "regularisation": linear_in_eps(self.eps(step, steps_per_epoch), self.eps_max(), self.regularisation, 0.0)
        }

    def loss(self, step: Step) -> Losses:
        if not is_exactly(step.eps, 0) or not self.regularises(step):
            return super().loss(step)
        out = self.bounded_output(step, kappa=1.0)
        assert out.nominal is not None
        natural = F.cross_entropy(out.nominal, step.labels)
        return self.regularised(step, out, {"loss": natural, "natural_loss": natural.detach()})

    def bounded_output(self, step: Step, kappa: Scheduled) -> Interval:  # [B, K]
        """The model's output on the box of the step; with a nominal stream only if something reads it."""
        lower, upper = (0.0, 1.0) if self.clip_box else (None, None)
        nominal = not is_exactly(kappa, 0) or uses_batch_statistics(step.model)
        return self.propagated(step, linf_box(step.x, self.radius(step), lower, upper, nominal=nominal))

    def propagated(self, step: Step, box: Interval) -> Interval:  # [B, K]
        """The model's output on a box, with the moments that `regularised` reads."""
        return step.model(with_moments(box) if self.regularises(step) else box)

    def regularised(self, step: Step, out: Interval, losses: Losses) -> Losses:
        """`losses` with the regularisers of short warm-up added to "loss", if this step has any."""
        if not self.regularises(step):
            return losses
        tightness, balance = warmup_regularisers(out, self.tolerance)
        loss = losses["loss"] + step.weights["regularisation"] * (tightness + balance)
        return {**losses, "loss": loss, "tightness": tightness.detach(), "balance": balance.detach()}

    def regularises(self, step: Step) -> bool:
        """Whether the regularisers of short warm-up count in this step."""
        return self.regularisation > 0 and not is_exactly(step.weights["regularisation"], 0)

    def radius(self, step: Step) -> Scheduled:
        """The radius of the step's box; with regularisers, which compare widths, at least one that float32 resolves."""
        if not self.regularises(step):
            return step.eps
        if isinstance(step.eps, Tensor):
            return step.eps.clamp(min=SMALLEST_WIDTH)
        return max(step.eps, SMALLEST_WIDTH)
