"""Training of globally-robust networks: margins against one Lipschitz constant of the whole network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fastbound import losses
from fastbound.domains.lipschitz import LipschitzState, lipschitz
from fastbound.train.recipes.fields import check_length, check_positive
from fastbound.train.recipes.ramped import RampedRecipe
from fastbound.train.recipes.step import Losses, Step
from fastbound.train.schedules import geometric_lr, linear_in_step, ramp


@dataclass(frozen=True, kw_only=True)
class GloRoRecipe(RampedRecipe):
    """Cross-entropy with the bottom logit as a class; with `divergence` ("kl" or "ce") the clean cross-entropy plus a
    divergence, whose weight goes from `trades_start` to `trades_end` in `trades_ramp` epochs.

    The learning rate is constant for `lr_hold` epochs and then falls to `lr_end` by the same factor in every step.
    """

    method: ClassVar[str] = "gloro"
    summary: ClassVar[str] = "one l2 Lipschitz constant for the network, a bottom logit for what is not robust"
    source: ClassVar[str] = "Leino, Wang & Fredrikson, ICML 2021, arXiv 2102.08452"
    norm: ClassVar[str] = "l2"
    times: ClassVar[tuple[str, ...]] = (*RampedRecipe.times, "lr_hold", "trades_ramp")

    batch_size: int = 256
    milestones: tuple[float, ...] = ()
    normalize: bool = False
    certify_with: str = "lipschitz"
    warmup: float = 0.0
    ramp: float = 50.0
    eps_schedule: str = "log"
    eps_factor: float = 1.1
    lr_hold: float = 50.0
    lr_end: float = 1e-6
    power_iterations: int = 5
    divergence: str | None = None
    trades_start: float = 0.0
    trades_end: float = 2.0
    trades_ramp: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "lr_end", "power_iterations")
        if self.divergence not in (None, "kl", "ce"):
            raise ValueError(f"divergence: wanted kl, ce or none, got {self.divergence!r}.")
        for name in ("trades_start", "trades_end", "trades_ramp", "lr_hold"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: wanted 0 or more, got {getattr(self, name)}.")
        check_length(f"the learning rate is held for {self.lr_hold:g} epochs", self.lr_hold, self.epochs)

    def lr_at(self, step: float, steps_per_epoch: int) -> float:
        start, end = self.lr_hold * steps_per_epoch, self.epochs * steps_per_epoch
        share = geometric_lr(step, 1.0, self.lr_end / self.lr, start, end)
        return share * super().lr_at(step, steps_per_epoch)

    def weights(self, step: float, steps_per_epoch: int) -> dict[str, float]:
        done = ramp(step, 0, self.trades_ramp * steps_per_epoch)
        return {"trades": linear_in_step(done, self.trades_start, self.trades_end)}

    def memory(self) -> nn.Module:
        return LipschitzState(self.power_iterations)

    def certified_loss(self, step: Step) -> Losses:
        assert isinstance(step.memory, LipschitzState)
        out = step.model(lipschitz(step.x, step.memory))
        if self.divergence is None:
            loss = losses.gloro_cross_entropy(out, step.labels, step.eps)
        else:
            loss = losses.gloro_trades(out, step.labels, step.eps, step.weights["trades"], self.divergence)
        return {"loss": loss, "lipschitz_constant": out.constant.detach()}
