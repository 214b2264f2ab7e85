"""The inputs of one training step, and losses that several recipes share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional as F

from fastbound.domains.streams import Streams
from fastbound.spec import margin_spec
from fastbound.train.schedules import Scheduled, is_exactly

# "loss" is minimised, the others are recorded.
Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Step:
    """The inputs of one training step, for `Recipe.loss`.

    `eps` is the radius of this step, `eps_max` that at the end of the ramp, `weights` are the numbers of
    `Recipe.weights` at this step. In a captured step, which serves many steps, radius and weights are tensors [] on the
    device; a loss that skips work at 0 or 1 (no radius, no clean part) asks `is_exactly`.
    """

    model: nn.Module
    x: Tensor  # [B, ...] in [0, 1]
    labels: Tensor  # [B]
    num_classes: int
    eps: Scheduled
    eps_max: float
    weights: Mapping[str, Scheduled] = field(default_factory=dict)
    memory: nn.Module = field(default_factory=nn.Module)

    def spec(self) -> Tensor:  # [B, K-1, K]
        return margin_spec(self.labels, self.num_classes)


def natural_loss(step: Step) -> Losses:
    """Cross-entropy on the clean inputs."""
    loss = F.cross_entropy(step.model(step.x), step.labels)
    return {"loss": loss, "natural_loss": loss.detach()}


def mixed(out: Streams, labels: Tensor, robust: Tensor, kappa: Scheduled) -> Losses:
    """kappa CE(clean logits) + (1 - kappa) robust; the clean part is left out if kappa is 0."""
    if is_exactly(kappa, 0):
        return {"loss": robust, "robust_loss": robust.detach()}
    assert out.nominal is not None  # bounded_output carries the clean stream wherever kappa is not 0
    natural = F.cross_entropy(out.nominal, labels)
    return {
        "loss": kappa * natural + (1 - kappa) * robust,
        "natural_loss": natural.detach(),
        "robust_loss": robust.detach(),
    }


def uses_batch_statistics(model: nn.Module) -> bool:
    """Whether a normalisation layer currently takes its statistics from the batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training for module in model.modules())
