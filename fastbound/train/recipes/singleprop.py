"""SingleProp: training by clean activations and one radius, a surrogate for interval bounds that is itself no bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch.nn import functional as F

from fastbound import losses
from fastbound.domains.singleprop import singleprop
from fastbound.primitives.singleprop_norm_relu import VARIANTS
from fastbound.train.recipes.certified import CertifiedRecipe
from fastbound.train.recipes.fields import check_positive, check_shares
from fastbound.train.recipes.step import Losses, Step, mixed
from fastbound.train.schedules import linear_in_step


@dataclass(frozen=True, kw_only=True)
class SurrogateRecipe(CertifiedRecipe):
    """kappa CE(clean) + (1 - kappa) CE(logits moved by their radii to the worse side); the ball is not clipped.

    The first `validation` images of the training set are held out, and their losses recorded.
    """

    source: ClassVar[str] = "Boopathy et al., 2021, arXiv 2102.01208"

    variant: str = "zero"
    validation: int = 0
    eps_schedule: str = "linear"
    clip_box: bool = False
    init: str = "lecun-normal"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in VARIANTS:
            raise ValueError(f"variant: wanted one of {', '.join(VARIANTS)}, got {self.variant!r}.")
        if self.validation < 0:
            raise ValueError(f"validation: wanted a number of images of 0 or more, got {self.validation}.")
        if self.clip_box:
            raise ValueError(
                "clip_box: SingleProp's radius reaches as far to either side, which a clipped ball does not; leave it "
                "out."
            )
        if self.regularisation > 0:
            raise ValueError(
                "regularisation: the regularisers of short warm-up compare interval bounds, which SingleProp does not "
                "compute; leave it out, or train by short-warmup."
            )

    def held_out(self) -> int:
        return self.validation

    def certified_loss(self, step: Step) -> Losses:
        out = step.model(singleprop(step.x, step.eps, self.variant))
        return mixed(out, step.labels, losses.singleprop_cross_entropy(out, step.labels), step.weights["kappa"])

    def validation_losses(self, step: Step) -> Losses:
        out = step.model(singleprop(step.x, step.eps, self.variant))
        natural, robust = F.cross_entropy(out.nominal, step.labels), losses.singleprop_cross_entropy(out, step.labels)
        return {"natural_loss": natural, "robust_loss": robust}


@dataclass(frozen=True, kw_only=True)
class SinglePropRecipe(SurrogateRecipe):
    """kappa linear in step over the ramp."""

    method: ClassVar[str] = "singleprop"
    summary: ClassVar[str] = "clean activations and one radius, two products a layer; no bound, certified by IBP"

    kappa_start: float = 1.0
    kappa_end: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self, "kappa_start", "kappa_end")

    def weights(self, step: float, steps_per_epoch: int) -> dict[str, float]:
        return {"kappa": linear_in_step(self.progress(step, steps_per_epoch), self.kappa_start, self.kappa_end)}


@dataclass(frozen=True, kw_only=True)
class AdaptiveSinglePropRecipe(SurrogateRecipe):
    """kappa 1 in the first epoch, then L_robust / (L_robust + gamma L_natural) of the validation images."""

    method: ClassVar[str] = "singleprop-adaptive"
    summary: ClassVar[str] = "singleprop with kappa from the losses of held-out images after each epoch"

    validation: int = 5000
    gamma: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "validation", "gamma")

    def weights(self, step: float, steps_per_epoch: int) -> dict[str, float]:
        return {"kappa": 1.0}

    def adapted(self, validation: Mapping[str, float]) -> dict[str, float]:
        robust, natural = validation["robust_loss"], validation["natural_loss"]
        total = robust + self.gamma * natural
        return {"kappa": robust / total if total > 0 else 1.0}
