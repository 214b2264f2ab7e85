"""What a published configuration names."""

from __future__ import annotations

from dataclasses import dataclass

from fastbound.train.recipes import Recipe


@dataclass(frozen=True)
class Config:
    """A published configuration: data set, network, the radius it is certified at, the recipe, and where it is
    written."""

    dataset: str
    model: str
    eps: float
    recipe: Recipe
    source: str
