"""`LipschitzState`: the power iterates of a model's layers, kept from one forward pass to the next."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastbound.domains.lipschitz.norms import certified_norm
from fastbound.domains.lipschitz.operators import Operator
from fastbound.ops.lipschitz_power import lipschitz_power
from fastbound.primitives.lipschitz_power import unit

FIRST_ITERATIONS = 50


@dataclass(frozen=True)
class Certificate:
    """A proven norm, and a copy of the weight, because a change of ``.data`` does not increase a tensor's version."""

    weight: Tensor
    geometry: tuple[Any, ...]
    norm: float

    @staticmethod
    def of(operator: Operator) -> Certificate:
        return Certificate(operator.weight.detach().clone(), operator.geometry, certified_norm(operator))

    def is_valid_for(self, operator: Operator) -> bool:
        same = self.weight.dtype == operator.weight.dtype and self.weight.device == operator.weight.device
        return same and self.geometry == operator.geometry and torch.equal(self.weight, operator.weight)


class LipschitzState(nn.Module):
    """The power iterates of a model's layers, one buffer per layer in the order in which they run.

    Weights change little from step to step, so a stored iterate stays close to the singular vector, with only a few
    iterations per forward pass. ``state_dict`` holds the iterates; ``load_state_dict`` restores them also
    into a new state.

    Args:
        iterations: power iterations of each layer per forward pass, at least 1. In its first pass a layer does at
            least 50.

    Certificates, the proven upper bounds, are kept until the values of a layer's weights change; they are not part of
    ``state_dict``.

    Raises:
        ValueError: iterations below 1; another model or input size than in earlier passes.
    """

    def __init__(self, iterations: int = 5) -> None:
        super().__init__()
        if iterations < 1:
            raise ValueError(f"iterations: wanted at least 1, got {iterations}.")
        self.iterations = iterations
        self._certificates: dict[int, Certificate] = {}

    def spectral_norm(self, place: int, operator: Operator) -> Tensor:
        """Estimate [] of the spectral norm of layer ``place``, from below; advances the layer's iterate.

        The gradient is that of ||W v|| with the iterate v held constant; at a singular vector it is that of the norm.
        """
        with _full_precision(operator.weight.device.type):
            iterate = self._advanced_iterate(place, operator)
            return torch.linalg.vector_norm(operator.apply(iterate))

    @torch.no_grad()
    def _advanced_iterate(self, place: int, operator: Operator) -> Tensor:  # [1, *S]
        iterate, iterations = self._iterate_of(place, operator)
        iterate = lipschitz_power(iterate, operator.weight, iterations, *operator.window)
        # In place, because a captured CUDA graph reads the same memory in its next replay.
        self.get_buffer(_name(place)).copy_(iterate)
        return iterate

    def certified_norm(self, place: int, operator: Operator) -> float:
        """Upper bound of the spectral norm of layer ``place``, proven in float64."""
        known = self._certificates.get(place)
        if known is None or not known.is_valid_for(operator):
            known = self._certificates[place] = Certificate.of(operator)
        return known.norm

    def _iterate_of(self, place: int, operator: Operator) -> tuple[Tensor, int]:  # [1, *S]
        """The current power iterate of a layer, and the number of iterations to do now."""
        name, shape, weight = _name(place), (1, *operator.input_shape), operator.weight
        known = getattr(self, name, None)
        if known is None:
            self.register_buffer(name, _start(shape, weight))
            return self.get_buffer(name), max(self.iterations, FIRST_ITERATIONS)
        if known.shape != shape:
            raise ValueError(
                f"state: layer {place} has inputs {list(shape[1:])}, its power iterate {list(known.shape[1:])}; one "
                "LipschitzState serves one model at one size of input."
            )
        if known.dtype != weight.dtype or known.device != weight.device:
            setattr(self, name, known.to(weight))
        return self.get_buffer(name), self.iterations

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in state_dict:
            own = name.removeprefix(prefix)
            if name.startswith(prefix) and own.removeprefix("iterate").isdigit():
                self.register_buffer(own, torch.empty_like(state_dict[name]))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _full_precision(kind: str) -> AbstractContextManager[None]:
    """Switches autocast off, on devices that have it."""
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def _name(place: int) -> str:
    return f"iterate{place}"


def _start(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A unit vector without a dominant frequency; the same in every process and run, and created on the device."""
    places = torch.arange(math.prod(shape), dtype=torch.float64, device=like.device)
    return unit((places.square() * math.sqrt(2)).frac().sub(0.5).to(like.dtype).view(shape))
