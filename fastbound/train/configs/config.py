"""`Config`: a published configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastbound.train.recipes import Recipe


@dataclass(frozen=True)
class Config:
    """A published configuration: data set, network, radius of certification, recipe, and where it was published.
    `model_options` are options of the network."""

    dataset: str
    model: str
    eps: float
    recipe: Recipe
    source: str
    model_options: Mapping[str, object] = field(default_factory=dict)
