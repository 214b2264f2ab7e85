"""Every entry of `fastbound.domains.functions`, some with several parameters, and intervals to try them on.

An entry that needs no arguments is tried without being listed here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from inspect import signature
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import fastbound.domains.functions  # noqa: F401  (registers the entries)
from fastbound.domains.rules import ENTRIES, canonical, function_name
from fastbound.shapes import Function


class Case(NamedTuple):
    """A torch function with arguments after the first."""

    torch_function: Callable[..., Tensor]
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = MappingProxyType({})
    # By how much values may be off, in units of rounding of x, because torch's own formula cancels.
    noise: float = 0.0
    tight: bool = True


def _needs_no_arguments(made: Callable[..., Function]) -> bool:
    return all(parameter.default is not parameter.empty for parameter in signature(made).parameters.values())


HALF = torch.tensor(0.5, dtype=torch.float64)
CASES = {
    **{function_name(f).rpartition(".")[2]: Case(f) for f, made in ENTRIES.items() if _needs_no_arguments(made)},
    "gelu": Case(F.gelu, noise=1.0),
    "gelu, tanh": Case(F.gelu, keywords={"approximate": "tanh"}, noise=1.0),
    "tanhshrink": Case(F.tanhshrink, noise=1.0),
    "relu": Case(torch.relu),
    **{f"leaky_relu {a}": Case(F.leaky_relu, (a,)) for a in (0.01, 0.3, 1.0, 2.5, -0.4)},
    "relu6": Case(F.relu6),
    "hardtanh": Case(F.hardtanh, (-2.0, 0.5)),
    "clamp": Case(torch.clamp, (-0.5, 0.7)),
    "clamp, crossed": Case(torch.clamp, (1.0, -1.0)),
    "clamp, tensors": Case(torch.clamp, (-HALF, HALF)),
    "clamp_min": Case(torch.clamp_min, (0.2,)),
    "clamp_max": Case(torch.clamp_max, (-0.2,)),
    "softshrink": Case(F.softshrink, (0.4,)),
    "hardshrink": Case(F.hardshrink, (0.4,)),
    "hardshrink 0": Case(F.hardshrink, (0.0,)),
    **{f"threshold {a}": Case(F.threshold, a) for a in ((0.1, -1.0), (0.1, 20.0), (-1.0, 0.5), (0.5, 0.5))},
    "heaviside": Case(torch.heaviside, (HALF,)),
    "heaviside, outside": Case(torch.heaviside, (HALF * 6,), tight=False),  # a single point stands out
    "round": Case(torch.round),
    **{f"elu {a}": Case(F.elu, (a,)) for a in (1.0, 0.5, 2.0, 0.0)},
    **{f"celu {a}": Case(F.celu, (a,)) for a in (1.0, 0.5, 3.0)},
    "softplus": Case(F.softplus),
    "softplus 3": Case(F.softplus, (3.0,)),
    "softplus, low threshold": Case(F.softplus, (2.0, 3.0)),
    "softplus, threshold -1": Case(F.softplus, (1.0, -1.0)),
    **{f"pow {p}": Case(torch.pow, (p,)) for p in (0, 1, 2, 3, 4, 0.5, 1.7, 2.5, -1, -2, -3, -0.5)},
    "prelu": Case(torch.prelu, (torch.tensor([0.2], dtype=torch.float64),)),
    "prelu, falling": Case(torch.prelu, (torch.tensor([-0.7], dtype=torch.float64),)),
}


def made(case: Case, dtype: torch.dtype) -> Function:
    arguments = (a.to(dtype) if isinstance(a, Tensor) else a for a in case.arguments)
    return ENTRIES[canonical(case.torch_function)](*arguments, **case.keywords)


# Kinks, bends, turns, jumps, crests and integers of some function.
PLACES = (-3.0, -2.5, -2.3993572805154677, -math.sqrt(2), -1.0, -0.5, -0.4, 0.0, 0.1, 0.4, 0.5, 0.7, 1.0, 1.5, 3.0, 6.0)


def intervals(function: Function, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:  # [N], [N]
    """Narrow and wide ones, with ends at the places of functions, huge ones and denormal ones."""
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)

    center = torch.randn(count, generator=generator, dtype=torch.float64) * 10 ** uniform(-2, 1)
    radius = 10 ** uniform(-7, 1.3)
    huge, tiny = torch.arange(count) % 17 == 0, torch.arange(count) % 17 == 1
    scale = torch.where(huge, 10 ** uniform(1, 4), torch.where(tiny, 10 ** uniform(-42, -36), 1.0))
    lower, upper = (center - radius) * scale, (center + radius) * scale
    place = torch.tensor(PLACES, dtype=torch.float64)[torch.arange(count) % len(PLACES)]
    kind = torch.arange(count) // 17 % 5
    lower = torch.where(kind == 1, place, lower)
    upper = torch.where(kind == 1, place + 2 * radius, torch.where(kind == 2, place, upper))
    lower = torch.where(kind == 2, place - 2 * radius, lower)
    upper = torch.where(kind == 3, lower, upper)  # a point
    return _defined(function, lower.to(dtype), upper.to(dtype))


def _defined(function: Function, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The intervals moved to where the function is defined, without those on which it leaves float's range."""
    if function.defined is not None:
        width = (upper - lower).clamp(max=30)
        if "poles" in function.defined.wanted:
            branch = math.pi * (lower / math.pi).round().clamp(-30, 30)
            lower = branch + (lower - branch).clamp(-1.4, 1.4)
            upper = torch.minimum(lower + width, branch + 1.5)
        elif "side" in function.defined.wanted:
            away = 10 ** (lower.abs().log10().clamp(-3, 3))
            lower, upper = torch.where(lower > 0, away, -away - width), torch.where(lower > 0, away + width, -away)
        else:
            least = float(function.defined.wanted.split()[-1])
            lower = least + (lower - least).abs().clamp(min=1e-3, max=1e4)
            upper = lower + width
    values = function.value(lower).abs() + function.value(upper).abs()
    kept = values < 1e30
    lower, upper = lower[kept], torch.maximum(lower, upper)[kept]
    if function.defined is not None:
        assert function.defined.holds(lower, upper).all()
    return lower, upper


def points(lower: Tensor, upper: Tensor, count: int) -> Tensor:  # [N], [N] -> [P, N]
    """Both ends, places of functions and others in between."""
    generator = torch.Generator().manual_seed(1)
    shares = torch.rand(count, len(lower), generator=generator, dtype=torch.float64).to(lower.dtype)
    inner = lower + (upper - lower) * shares
    places = torch.tensor(PLACES, dtype=lower.dtype)[torch.arange(len(lower)) % len(PLACES)]
    zero = torch.zeros_like(lower)
    found = torch.stack((lower, upper, (lower + upper) / 2, places, zero, *inner))
    return torch.minimum(torch.maximum(found, lower), upper)
