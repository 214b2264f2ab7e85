"""What a published configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastbound.train.recipes import Recipe


@dataclass(frozen=True)
class Config:
    """A published configuration: data set, network, the radius it is certified at, the recipe, and where it is
    written; `model_options` belong to that network."""

    dataset: str
    model: str
    eps: float
    recipe: Recipe
    source: str
    model_options: Mapping[str, object] = field(default_factory=dict)
