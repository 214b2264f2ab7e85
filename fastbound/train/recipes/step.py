"""One training step as a recipe sees it, and the losses that several recipes are made of."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from fastbound.domains.interval import Interval
from fastbound.spec import margin_spec

# "loss" is minimised, the others are recorded.
Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Step:
    """What a recipe sees of one training step.

    `eps` is the radius now, `eps_max` the one that the ramp ends with, `progress` the share of the ramp that is done.
    """

    model: nn.Module
    x: Tensor  # [B, ...] in [0, 1]
    labels: Tensor  # [B]
    num_classes: int
    eps: float
    eps_max: float
    progress: float

    def spec(self) -> Tensor:  # [B, K-1, K]
        return margin_spec(self.labels, self.num_classes)


def natural_loss(step: Step) -> Losses:
    """Cross-entropy on the clean inputs."""
    loss = F.cross_entropy(step.model(step.x), step.labels)
    return {"loss": loss, "natural_loss": loss.detach()}


def mixed(out: Interval, labels: Tensor, robust: Tensor, kappa: float) -> Losses:
    """kappa CE(clean logits) + (1 - kappa) robust; the clean part is left out where kappa is 0."""
    if kappa == 0:
        return {"loss": robust, "robust_loss": robust.detach()}
    assert out.nominal is not None  # bounded_output carries the clean stream wherever kappa > 0
    natural = F.cross_entropy(out.nominal, labels)
    return {
        "loss": kappa * natural + (1 - kappa) * robust,
        "natural_loss": natural.detach(),
        "robust_loss": robust.detach(),
    }


def uses_batch_statistics(model: nn.Module) -> bool:
    """Whether a normalisation layer takes its statistics from the batch now."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training for module in model.modules())
