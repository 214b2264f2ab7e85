"""Ordinary training, without certificates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastbound.train.recipes.recipe import Recipe
from fastbound.train.recipes.step import Losses, Step, natural_loss


@dataclass(frozen=True, kw_only=True)
class NaturalRecipe(Recipe):
    """Cross-entropy on clean inputs: the uncertified baseline."""

    method: ClassVar[str] = "natural"
    summary: ClassVar[str] = "cross-entropy on clean inputs; no certificate to expect"
    source: ClassVar[str] = "ordinary training"

    def loss(self, step: Step) -> Losses:
        return natural_loss(step)
