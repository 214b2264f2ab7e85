"""Training with any of the relaxations that `fastbound.study` compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fastbound import losses
from fastbound.bounds import bound
from fastbound.domains.interval import Interval
from fastbound.domains.interval.loosened import LoosenedInterval
from fastbound.domains.zonotope import zonotope
from fastbound.methods import METHODS, STUDIED
from fastbound.train.penalties import l1_of_weights
from fastbound.train.recipes.certified import CertifiedRecipe
from fastbound.train.recipes.crown_ibp import blended
from fastbound.train.recipes.fields import check_shares
from fastbound.train.recipes.step import Losses, Step, mixed
from fastbound.train.schedules import linear_in_step

# "crown-ibp" is the mixture that ends as IBP; with beta fixed at 1 it is "crown-ibp-r".
RELAXATIONS = (*STUDIED, "crown", "crown-ibp")


@dataclass(frozen=True, kw_only=True)
class RelaxationRecipe(CertifiedRecipe):
    """kappa CE(clean) + (1 - kappa) CE(worst case by `relaxation`) + l1 sum |W|; eps, kappa and beta linear in step.

    `beta_end` concerns only the relaxation crown-ibp, whose margins are beta CROWN-IBP + (1 - beta) IBP, with beta from
    1 to `beta_end`. A run is certified by its own relaxation (crown-ibp: by IBP) and by `certify_with`.
    `looseness` and `jumps` train the relaxation box with wider intervals (`LoosenedInterval`), the controlled
    experiment of the paper; certificates use box itself.
    """

    method: ClassVar[str] = "relaxation"
    summary: ClassVar[str] = "worst case by the zonotopes or lines of --relaxation, listed below"
    source: ClassVar[str] = "Jovanovic et al., 2022, arXiv 2102.06700"

    epochs: int = 200
    batch_size: int = 100
    lr: float = 5e-4
    lr_decay: float = 0.1
    milestones: tuple[float, ...] = (130.0, 190.0)
    warmup: float = 10.0
    ramp: float = 50.0
    eps_schedule: str = "linear"
    certify_with: str = "crown"
    relaxation: str = "box"
    kappa_start: float = 1.0
    kappa_end: float = 0.5
    beta_end: float = 0.0
    l1: float = 0.0
    looseness: float = 0.0
    jumps: float = 0.0

    def __post_init__(self) -> None:
        if self.relaxation not in RELAXATIONS:
            raise ValueError(f"relaxation: wanted one of {', '.join(RELAXATIONS)}, got {self.relaxation!r}.")
        super().__post_init__()
        check_shares(self, "kappa_start", "kappa_end", "beta_end")
        if not self.l1 >= 0:
            raise ValueError(f"l1: wanted 0 or more, got {self.l1}.")
        if not (self.looseness >= 0 and self.jumps >= 0):
            raise ValueError(f"looseness and jumps: wanted 0 or more, got {self.looseness} and {self.jumps}.")
        if self.looseness > 0 and self.relaxation != "box":
            raise ValueError(f"looseness: widens the intervals of relaxation 'box', got {self.relaxation!r}.")
        if self.regularisation > 0 and self._zonotope():
            raise ValueError(
                "regularisation: the regularisers of short warm-up read intervals; take a relaxation without zonotopes."
            )

    def certificates(self) -> tuple[str, ...]:
        own = "ibp" if self.relaxation == "crown-ibp" else self.relaxation
        return own, *({self.certify_with} - {own})

    def weights(self, step: float, steps_per_epoch: int) -> dict[str, float]:
        progress = self.progress(step, steps_per_epoch)
        kappa = linear_in_step(progress, self.kappa_start, self.kappa_end)
        beta = {"beta": linear_in_step(progress, 1.0, self.beta_end)} if self.relaxation == "crown-ibp" else {}
        return {**super().weights(step, steps_per_epoch), "kappa": kappa, **beta}

    def loss(self, step: Step) -> Losses:
        found = super().loss(step)
        if self.l1 == 0:
            return found
        penalty = self.l1 * l1_of_weights(step.model)
        return {**found, "loss": found["loss"] + penalty, "l1_loss": penalty.detach()}

    def propagated(self, step: Step, box: Interval) -> Any:
        if self._zonotope():
            return step.model(zonotope(box, self.relaxation))
        if self.looseness > 0:
            box = LoosenedInterval(box, self.looseness, self.jumps)
        return super().propagated(step, box)

    def certified_loss(self, step: Step) -> Losses:
        kappa = step.weights["kappa"]
        out: Any = self.bounded_output(step, kappa)
        if self.relaxation == "crown-ibp":
            margins = blended(out, step.spec(), step.weights["beta"])
        else:
            margins = bound(out, method="ibp" if self._zonotope() else self.relaxation, spec=step.spec())
        return self.regularised(step, out, mixed(out, step.labels, losses.robust_cross_entropy(margins), kappa))

    def _zonotope(self) -> bool:
        return METHODS[self.relaxation].kind == "zonotope"
