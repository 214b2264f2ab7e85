"""`LipschitzState`: what the constants of a model carry from one forward pass to the next."""

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
    """A proven norm, and the numbers that it was proven for. A tensor's version would miss a change of ``.data``."""

    weight: Tensor
    geometry: tuple[Any, ...]
    norm: float

    @staticmethod
    def of(operator: Operator) -> Certificate:
        return Certificate(operator.weight.detach().clone(), operator.geometry, certified_norm(operator))

    def covers(self, operator: Operator) -> bool:
        same = self.weight.dtype == operator.weight.dtype and self.weight.device == operator.weight.device
        return same and self.geometry == operator.geometry and torch.equal(self.weight, operator.weight)


class LipschitzState(nn.Module):
    """The power iterates of a model's layers, one buffer a layer in the order in which the layers run.

    Weights change little from step to step, so an iterate that persists stays close to its singular vector and a few
    iterations a forward pass follow it. ``state_dict`` holds the iterates; ``load_state_dict`` restores them also
    into a new state.

    Args:
        iterations: power iterations of each layer a forward pass, at least 1. The first one of a layer does
            50 instead.

    Certificates, the proven upper bounds, are kept for as long as a layer's weights hold the same numbers; they are
    not part of ``state_dict``.

    Raises:
        ValueError: iterations below 1; a model, or a size of input, other than the one that the state was made with.
    """

    def __init__(self, iterations: int = 5) -> None:
        super().__init__()
        if iterations < 1:
            raise ValueError(f"iterations: wanted at least 1, got {iterations}.")
        self.iterations = iterations
        self._certificates: dict[int, Certificate] = {}

    def spectral_norm(self, place: int, operator: Operator) -> Tensor:
        """Estimate [] of the spectral norm of layer ``place``, from below; advances the layer's iterate.

        The iterate is a constant to autograd: what is differentiated is ||W v|| at the unit vector v, whose gradient
        at a singular vector is that of the norm itself.
        """
        with _full_precision(operator.weight.device.type):
            iterate = self._advanced(place, operator)
            return torch.linalg.vector_norm(operator.apply(iterate))

    @torch.no_grad()
    def _advanced(self, place: int, operator: Operator) -> Tensor:  # [1, *S]
        iterate, iterations = self._begun(place, operator)
        iterate = lipschitz_power(iterate, operator.weight, iterations, *operator.window)
        # In place: a captured program writes to where the next replay reads.
        self.get_buffer(_name(place)).copy_(iterate)
        return iterate

    def certified_norm(self, place: int, operator: Operator) -> float:
        """Upper bound of the spectral norm of layer ``place``, proven in float64."""
        known = self._certificates.get(place)
        if known is None or not known.covers(operator):
            known = self._certificates[place] = Certificate.of(operator)
        return known.norm

    def _begun(self, place: int, operator: Operator) -> tuple[Tensor, int]:  # [1, *S]
        """Where the power iteration of a layer stands, and how many iterations it needs now."""
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
    """No autocast, on devices that have one."""
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def _name(place: int) -> str:
    return f"iterate{place}"


def _start(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A unit vector in which no frequency dominates: the same in every process and run, made on the device."""
    places = torch.arange(math.prod(shape), dtype=torch.float64, device=like.device)
    return unit((places.square() * math.sqrt(2)).frac().sub(0.5).to(like.dtype).view(shape))
