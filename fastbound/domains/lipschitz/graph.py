"""The graph of a Lipschitz value: how its constant is computed from those of its inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from fastbound.domains.lipschitz.operators import Operator
from fastbound.domains.lipschitz.state import LipschitzState


class Input(NamedTuple):
    """The input of the network, whose constant is 1."""


class Layer(NamedTuple):
    """A linear operator: the input's constant times the spectral norm."""

    operator: Operator
    place: int  # number of the layer in the forward pass


class Factor(NamedTuple):
    """A function with a known constant: the input's constant times that."""

    value: float | Tensor  # >= 0; a tensor [] if it is differentiable


class Addition(NamedTuple):
    """A sum: the sum of the inputs' constants."""


class Joint(NamedTuple):
    """A concatenation: the root of the sum of the squares of the inputs' constants."""


Gain = Input | Layer | Factor | Addition | Joint


@dataclass(eq=False)
class Flow:
    """One forward pass: its layers so far, and estimates of their norms, computed when first read."""

    state: LipschitzState
    operators: list[Operator] = field(default_factory=list)
    norms: dict[int, Tensor] = field(default_factory=dict)

    def norm(self, layer: Layer) -> Tensor:  # []
        if layer.place not in self.norms:
            self.norms[layer.place] = self.state.spectral_norm(layer.place, layer.operator)
        return self.norms[layer.place]


class LipschitzNode(NamedTuple):
    """One value: clean activations [B, *S], its inputs, how its constant is computed from theirs, the forward pass."""

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
