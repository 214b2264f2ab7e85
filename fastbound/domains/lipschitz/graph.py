"""The graph of a Lipschitz value: how its constant follows from those of the values that it was made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from fastbound.domains.lipschitz.operators import Operator
from fastbound.domains.lipschitz.state import LipschitzState


class Input(NamedTuple):
    """The input itself: 1."""


class Layer(NamedTuple):
    """A linear operator: the input's times the spectral norm."""

    operator: Operator
    place: int  # among the layers of the forward pass


class Factor(NamedTuple):
    """A function with a known constant: the input's times that."""

    value: float | Tensor  # a scalar tensor, >= 0, where it is differentiated


class Addition(NamedTuple):
    """A sum: the sum of the inputs'."""


class Joint(NamedTuple):
    """Values side by side: the root of the sum of the inputs' squares."""


Gain = Input | Layer | Factor | Addition | Joint


@dataclass(eq=False)
class Flow:
    """One forward pass: the layers so far, and the estimates of their norms, each made when first read."""

    state: LipschitzState
    operators: list[Operator] = field(default_factory=list)
    norms: dict[int, Tensor] = field(default_factory=dict)

    def norm(self, layer: Layer) -> Tensor:  # []
        if layer.place not in self.norms:
            self.norms[layer.place] = self.state.spectral_norm(layer.place, layer.operator)
        return self.norms[layer.place]


class LipschitzNode(NamedTuple):
    """One value: clean activations [B, *S], how its constant follows from its inputs', and the forward pass."""

    nominal: Tensor
    gain: Gain
    inputs: tuple[LipschitzNode, ...]
    flow: Flow

    @property
    def shape(self) -> torch.Size:
        return self.nominal.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.nominal.dtype

    @property
    def device(self) -> torch.device:
        return self.nominal.device

    @property
    def requires_grad(self) -> bool:
        return self.nominal.requires_grad
