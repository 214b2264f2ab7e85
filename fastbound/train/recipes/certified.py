"""What the methods have whose radius grows from 0 over a ramp."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from fastbound.domains.box import linf_box
from fastbound.domains.interval import Interval
from fastbound.train.recipes.checks import check_length, check_positive
from fastbound.train.recipes.recipe import Recipe
from fastbound.train.recipes.step import Losses, Step, natural_loss, uses_batch_statistics
from fastbound.train.regularisers import warmup_regularisers, with_moments
from fastbound.train.schedules import EPS_SCHEDULES, Scheduled, is_exactly, linear_in_eps, ramp

SMALLEST_WIDTH = 1e-6


@dataclass(frozen=True, kw_only=True)
class CertifiedRecipe(Recipe):
    """A recipe whose radius is 0 for `warmup` epochs and then grows for `ramp` epochs up to `eps_train`.

    `eps_train` None: `eps_factor` times the radius that the run certifies at. `clip_box`: boxes end at 0 and 1.
    `regularisation`: weight of the regularisers of short warm-up at radius 0, falling to 0 as the radius grows;
    `tolerance` is theirs (`warmup_regularisers`).
    """

    times: ClassVar[tuple[str, ...]] = ("warmup", "ramp")

    warmup: float = 2.0
    ramp: float = 40.0
    eps_schedule: str = "smoothed"
    mid: float = 0.25
    eps_train: float | None = None
    eps_factor: float = 1.0
    clip_box: bool = True
    regularisation: float = 0.0
    tolerance: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps_schedule not in EPS_SCHEDULES:
            raise ValueError(f"eps_schedule: there is no {self.eps_schedule!r}; known: {', '.join(EPS_SCHEDULES)}.")
        if not 0 <= self.mid < 1:
            raise ValueError(f"mid: wanted a share of the ramp in [0, 1), got {self.mid}.")
        if self.warmup < 0 or self.ramp < 0:
            raise ValueError(f"warmup and ramp: wanted 0 or more epochs, got {self.warmup} and {self.ramp}.")
        if self.eps_train is not None and not self.eps_train > 0:
            raise ValueError(
                f"eps_train: wanted a radius greater than 0, got {self.eps_train} (--method natural trains without "
                "one)."
            )
        if self.regularisation < 0:
            raise ValueError(f"regularisation: wanted a weight of 0 or more, got {self.regularisation}.")
        check_positive(self, "tolerance")
        end = self.warmup + self.ramp
        check_length(
            f"{self.warmup:g} epochs at eps 0 and a ramp of {self.ramp:g} epochs make {end:g}", end, self.epochs
        )

    def eps(self, step: float, steps_per_epoch: int) -> float:
        start, end = self._ramp(steps_per_epoch)
        shape = {"mid": self.mid} if self.eps_schedule == "smoothed" else {}
        return EPS_SCHEDULES[self.eps_schedule](step, start, end, self.eps_max(), **shape)

    def eps_max(self) -> float:
        if self.eps_train is None:
            raise ValueError("eps_train: not resolved; use fastbound.train.recipes.resolve.")
        return self.eps_train

    def progress(self, step: float, steps_per_epoch: int) -> float:
        """The share of the eps ramp that is done at this step."""
        return ramp(step, *self._ramp(steps_per_epoch))

    def _ramp(self, steps_per_epoch: int) -> tuple[int, int]:
        return round(self.warmup * steps_per_epoch), round((self.warmup + self.ramp) * steps_per_epoch)

    def weights(self, step: float, steps_per_epoch: int) -> dict[str, float]:
        if self.regularisation == 0:
            return {}
        return {
            "regularisation": linear_in_eps(self.eps(step, steps_per_epoch), self.eps_max(), self.regularisation, 0.0)
        }

    def loss(self, step: Step) -> Losses:
        if not is_exactly(step.eps, 0):
            return self.certified_loss(step)
        if not self.regularises(step):
            return natural_loss(step)
        out = self.bounded_output(step, kappa=1.0)
        assert out.nominal is not None
        natural = F.cross_entropy(out.nominal, step.labels)
        return self.regularised(step, out, {"loss": natural, "natural_loss": natural.detach()})

    @abstractmethod
    def certified_loss(self, step: Step) -> Losses:
        """The loss at a radius greater than 0."""

    def bounded_output(self, step: Step, kappa: Scheduled) -> Interval:  # [B, K]
        """The model's output on the box of the step; with a nominal stream only where something reads it."""
        lower, upper = (0.0, 1.0) if self.clip_box else (None, None)
        nominal = not is_exactly(kappa, 0) or uses_batch_statistics(step.model)
        return self.propagated(step, linf_box(step.x, self.radius(step), lower, upper, nominal=nominal))

    def propagated(self, step: Step, box: Interval) -> Interval:  # [B, K]
        """The model's output on a box, with what `regularised` will read of it."""
        return step.model(with_moments(box) if self.regularises(step) else box)

    def regularised(self, step: Step, out: Interval, losses: Losses) -> Losses:
        """`losses` with the regularisers of short warm-up added to the first, where this step has them."""
        if not self.regularises(step):
            return losses
        tightness, balance = warmup_regularisers(out, self.tolerance)
        loss = losses["loss"] + step.weights["regularisation"] * (tightness + balance)
        return {**losses, "loss": loss, "tightness": tightness.detach(), "balance": balance.detach()}

    def regularises(self, step: Step) -> bool:
        return self.regularisation > 0 and not is_exactly(step.weights["regularisation"], 0)

    def radius(self, step: Step) -> Scheduled:
        """The radius of the step's box: where the regularisers compare widths, at least one that float32 resolves."""
        if not self.regularises(step):
            return step.eps
        if isinstance(step.eps, Tensor):
            return step.eps.clamp(min=SMALLEST_WIDTH)
        return max(step.eps, SMALLEST_WIDTH)
