"""Adversarial training: the baseline that is robust to attacks and has no certificate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.nn import functional as F

from fastbound.train.recipes.adversarial import AdversarialRecipe
from fastbound.train.recipes.step import Losses, Step


@dataclass(frozen=True, kw_only=True)
class PGDRecipe(AdversarialRecipe):
    """Cross-entropy at an adversarial point; the radius grows as in certified training."""

    method: ClassVar[str] = "pgd"
    summary: ClassVar[str] = "cross-entropy at adversarial points; no certificate to expect"
    source: ClassVar[str] = "Madry et al., 2018, arXiv 1706.06083"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.regularisation > 0:
            raise ValueError("regularisation: pgd computes no bounds that it could regularise; leave it at 0.")

    def certified_loss(self, step: Step) -> Losses:
        loss = F.cross_entropy(step.model(self.attacked(step)), step.labels)
        return {"loss": loss, "adversarial_loss": loss.detach()}
