"""Base of the methods whose radius grows from 0 over a ramp."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from fastbound.choices import EPS_SCHEDULES
from fastbound.train.recipes.fields import check_length, check_positive
from fastbound.train.recipes.recipe import Recipe
from fastbound.train.recipes.step import Losses, Step, natural_loss
from fastbound.train.schedules import is_exactly, ramp


@dataclass(frozen=True, kw_only=True)
class RampedRecipe(Recipe):
    """A recipe whose radius is 0 for `warmup` epochs and then grows for `ramp` epochs up to `eps_train`.

    If `eps_train` is None, it becomes `eps_factor` times the radius at which the run is certified.
    """

    times: ClassVar[tuple[str, ...]] = ("warmup", "ramp")

    warmup: float = 2.0
    ramp: float = 40.0
    eps_schedule: str = "smoothed"
    mid: float = 0.25
    eps_train: float | None = None
    eps_factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "eps_factor")
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

    def loss(self, step: Step) -> Losses:
        return natural_loss(step) if is_exactly(step.eps, 0) else self.certified_loss(step)

    @abstractmethod
    def certified_loss(self, step: Step) -> Losses:
        """The loss at a radius greater than 0."""
