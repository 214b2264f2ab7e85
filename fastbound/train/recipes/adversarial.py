"""Base of the methods that search for an adversarial point in every step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from fastbound.train.adversary import adversarial_points
from fastbound.train.penalties import l1_of_weights
from fastbound.train.recipes.certified import CertifiedRecipe
from fastbound.train.recipes.fields import check_positive
from fastbound.train.recipes.step import Losses, Step
from fastbound.train.schedules import Scheduled


@dataclass(frozen=True, kw_only=True)
class AdversarialRecipe(CertifiedRecipe):
    """A recipe with an attack on the box of `attack_factor` times the radius, and an L1 penalty in every epoch.

    `attack_step` is in half-widths of that box (2 or more ends in a corner); it becomes 10 times smaller after each of
    the shares `attack_decays` of the steps.
    """

    attack_steps: int = 8
    attack_step: float = 0.25
    attack_decays: tuple[float, ...] = ()
    attack_factor: float = 1.0
    l1: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "attack_steps", "attack_step", "attack_factor")
        if not all(isinstance(share, (int, float)) and 0 < share <= 1 for share in self.attack_decays):
            raise ValueError(f"attack_decays: wanted shares of the steps in (0, 1], got {list(self.attack_decays)}.")
        if not self.l1 >= 0:
            raise ValueError(f"l1: wanted 0 or more, got {self.l1}.")

    def loss(self, step: Step) -> Losses:
        losses = super().loss(step)
        if self.l1 == 0:
            return losses
        penalty = self.l1 * self.l1_of(step.model)
        return {**losses, "loss": losses["loss"] + penalty, "l1_loss": penalty.detach()}

    def l1_of(self, model: nn.Module) -> Tensor:  # []
        """The L1 norm that `l1` multiplies."""
        return l1_of_weights(model)

    def ends(self, step: Step, eps: Scheduled) -> tuple[Tensor, Tensor]:  # [B, ...] each
        """Lower and upper end of the box of radius `eps` around the inputs."""
        lower, upper = step.x - eps, step.x + eps
        return (lower.clamp(min=0), upper.clamp(max=1)) if self.clip_box else (lower, upper)

    def attacked(self, step: Step) -> Tensor:  # [B, ...]
        """Adversarial points for the inputs of the step."""
        return adversarial_points(
            step.model,
            *self.ends(step, self.attack_factor * step.eps),
            step.labels,
            steps=self.attack_steps,
            step_size=self.attack_step,
            decays=self.attack_decays,
        )
