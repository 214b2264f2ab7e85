"""Element-wise functions, one entry each: the function, its derivative, its shape, its Lipschitz constant.

Every domain and the backward walk read these entries, so a function added here has interval, zonotope, CROWN and
Lipschitz bounds at once. An entry takes the arguments of its torch function after the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.location import module_path
from fastbound.domains.rules import entry
from fastbound.shapes import (
    Branches,
    Corner,
    Curved,
    Definition,
    Function,
    Hinge,
    Polygon,
    Ramp,
    Staircase,
    Stepped,
    Wave,
    kink,
    one_branch,
)


def _wanted(name: str, argument: str, wanted: str, got: Any) -> NotImplementedError:
    return NotImplementedError(f"{name}{module_path()}: wanted {argument} {wanted}, got {got}.")


def _above(least: float, closed: bool) -> Definition:
    """Defined above ``least``, and there too if ``closed``."""
    return Definition(
        holds=(lambda lower, upper: lower >= least) if closed else (lambda lower, upper: lower > least),
        wanted=f"numbers {'>=' if closed else '>'} {least:g}",
        advice=f"clamp the input, e.g. x.clamp(min={least + 1e-3:g}), or take a smaller eps",
    )


_POSITIVE, _NOT_NEGATIVE = _above(0, closed=False), _above(0, closed=True)
_NOT_ACROSS_0 = Definition(
    holds=lambda lower, upper: (lower > 0) | (upper < 0),
    wanted="intervals on one side of 0",
    advice="keep the input away from 0, e.g. by x.clamp(min=1e-3), or take a smaller eps",
)
_BETWEEN_POLES = Definition(one_branch, "intervals between two poles", "take a smaller eps, or bounded inputs")

# ---- shapes and slopes that several entries share --------------------------------------------------------------------

_CONVEX, _CONCAVE = Curved(convex=True), Curved(convex=False)
_S = Curved(convex=True, bends=(0.0,))
_S_CONCAVE_FIRST = Curved(convex=False, bends=(0.0,))
_ROUND_VALLEY = Curved(convex=True, rises=False, turn=0.0)


def _valley(minimum: float, left: float, right: float, kinked: bool = False) -> Curved:
    """Convex about its minimum, concave to both sides."""
    return Curved(convex=False, bends=(left, right), rises=False, turn=minimum, kinked=kinked)


def _sigmoid_slope(x: Tensor) -> Tensor:
    y = torch.sigmoid(x)
    return y * (1 - y)


def _tanh_slope(x: Tensor) -> Tensor:
    y = torch.tanh(x)
    return 1 - y * y


def _gelu_slope(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x * math.sqrt(0.5))) + x * (-0.5 * x * x).exp() * (1 / math.sqrt(2 * math.pi))


def _gelu_tanh_slope(x: Tensor) -> Tensor:
    scale = math.sqrt(2 / math.pi)
    inner = torch.tanh(scale * (x + 0.044715 * x * x * x))
    return 0.5 * (1 + inner) + 0.5 * x * (1 - inner * inner) * (scale * (1 + 3 * 0.044715 * x * x))


def _silu_slope(x: Tensor) -> Tensor:
    y = torch.sigmoid(x)
    return y + x * (y * (1 - y))


def _mish_slope(x: Tensor) -> Tensor:
    y = torch.tanh(F.softplus(x))
    return y + x * ((1 - y * y) * torch.sigmoid(x))


def _hardswish_slope(x: Tensor) -> Tensor:
    return torch.where(x.abs() <= 3, (2 * x + 3) / 6, (x > 0).to(x.dtype))


_SELU_SCALE, _SELU_SLOPE = 1.0507009873554805, 1.7580993408473769  # as torch has them


def _selu_slope(x: Tensor) -> Tensor:
    return torch.where(x > 0, _SELU_SCALE, _SELU_SLOPE * x.clamp(max=0).exp())


# ---- functions without parameters ------------------------------------------------------------------------------------

# In the order of `Function`: value, derivative, shape, Lipschitz constant, where defined.
FIXED: dict[Callable[..., Any], Function] = {
    torch.abs: Function(torch.abs, torch.sign, Polygon((kink(0.0, 0.0),), rises=False, turn=0.0), 1.0),
    F.hardsigmoid: Function(
        F.hardsigmoid,
        lambda x: (x.abs() < 3).to(x.dtype) / 6,
        Polygon((kink(-3.0, 0.0), kink(3.0, 1.0))),
        0.16666666666666669,
    ),
    # Steps. ceil is floor(x + 1), but for the integers themselves.
    torch.sign: Function(torch.sign, torch.zeros_like, Polygon((Corner(0.0, -1.0, 0.0, 1.0),)), math.inf),
    torch.floor: Function(torch.floor, torch.zeros_like, Staircase(0.0), math.inf),
    torch.ceil: Function(torch.ceil, torch.zeros_like, Staircase(1.0), math.inf),
    # Exponentials, logarithms, powers.
    torch.exp: Function(torch.exp, torch.exp, _CONVEX, math.inf),
    torch.expm1: Function(torch.expm1, torch.exp, _CONVEX, math.inf),
    torch.log: Function(torch.log, torch.reciprocal, _CONCAVE, math.inf, _POSITIVE),
    torch.log2: Function(torch.log2, lambda x: 1 / (x * math.log(2)), _CONCAVE, math.inf, _POSITIVE),
    torch.log10: Function(torch.log10, lambda x: 1 / (x * math.log(10)), _CONCAVE, math.inf, _POSITIVE),
    torch.log1p: Function(torch.log1p, lambda x: 1 / (1 + x), _CONCAVE, math.inf, _above(-1, closed=False)),
    torch.square: Function(torch.square, lambda x: 2 * x, _ROUND_VALLEY, math.inf),
    torch.sqrt: Function(torch.sqrt, lambda x: 0.5 / x.sqrt(), _CONCAVE, math.inf, _NOT_NEGATIVE),
    torch.rsqrt: Function(
        torch.rsqrt, lambda x: -0.5 * x.rsqrt() / x, Curved(convex=True, rises=False), math.inf, _POSITIVE
    ),
    torch.reciprocal: Function(
        torch.reciprocal,
        lambda x: -x.reciprocal().square(),
        Curved(convex=False, bends=(0.0,), rises=False),
        math.inf,
        _NOT_ACROSS_0,
    ),
    # S-shaped.
    torch.sigmoid: Function(torch.sigmoid, _sigmoid_slope, _S, 0.25),
    torch.tanh: Function(torch.tanh, _tanh_slope, _S, 1.0),
    F.softsign: Function(F.softsign, lambda x: (1 + x.abs()).square().reciprocal(), _S, 1.0),
    torch.atan: Function(torch.atan, lambda x: 1 / (1 + x * x), _S, 1.0),
    torch.erf: Function(torch.erf, lambda x: (-x * x).exp() * (2 / math.sqrt(math.pi)), _S, 1.1283791670955127),
    F.tanhshrink: Function(F.tanhshrink, lambda x: torch.tanh(x).square(), _S_CONCAVE_FIRST, 1.0),
    # Other activations.
    F.logsigmoid: Function(F.logsigmoid, lambda x: torch.sigmoid(-x), _CONCAVE, 1.0),
    F.selu: Function(F.selu, _selu_slope, Curved(convex=True, bends=(0.0,), kinked=True), 1.7580993408473771),
    F.silu: Function(
        F.silu, _silu_slope, _valley(-1.2784645427610738, -2.3993572805154677, 2.3993572805154677), 1.0998393201288670
    ),
    F.mish: Function(
        F.mish, _mish_slope, _valley(-1.1924312145154952, -2.2563763963607931, 1.4905711794854285), 1.0884981612517279
    ),
    F.hardswish: Function(F.hardswish, _hardswish_slope, _valley(-1.5, -3.0, 3.0, kinked=True), 1.5),
    # Waves.
    torch.sin: Function(torch.sin, torch.cos, Wave(crest=math.pi / 2, trough=-math.pi / 2), 1.0),
    torch.cos: Function(torch.cos, lambda x: -torch.sin(x), Wave(crest=0.0, trough=math.pi), 1.0),
    torch.tan: Function(torch.tan, lambda x: 1 + torch.tan(x).square(), Branches(), math.inf, _BETWEEN_POLES),
}


def _without_parameters(function: Function) -> Callable[[], Function]:
    return lambda: function


for _torch_function, _function in FIXED.items():
    entry(_torch_function)(_without_parameters(_function))


# ---- functions with parameters ---------------------------------------------------------------------------------------


@entry(F.leaky_relu)
def leaky_relu(negative_slope: float = 0.01) -> Function:
    slope = float(negative_slope)
    return Function(
        value=lambda x: F.leaky_relu(x, slope),
        derivative=lambda x: slope + (1 - slope) * (x > 0).to(x.dtype),
        shape=Hinge((kink(0.0, 0.0),), rises=slope >= 0, turn=None if slope >= 0 else 0.0, negative_slope=slope),
        lipschitz=max(1.0, abs(slope)),
    )


_RELU = leaky_relu(0.0)


@entry(torch.relu)
def relu() -> Function:
    return _RELU


@entry(torch.prelu)
def prelu(weight: Tensor) -> Function:
    return Function(
        value=lambda x: torch.prelu(x, weight),
        derivative=lambda x: torch.where(x > 0, 1.0, torch.prelu(-torch.ones_like(x), weight).neg()),
        shape=Polygon((kink(0.0, 0.0),), rises=None),
        lipschitz=weight.abs().amax().clamp(min=1.0),
        parameters=(weight,),
    )


@entry(torch.clamp)
def clamp(min: float | Tensor | None = None, max: float | Tensor | None = None) -> Function:
    if not all(limit is None or isinstance(limit, (Tensor, int, float)) for limit in (min, max)):
        raise NotImplementedError(f"clamp{module_path()}: wanted constant limits, got abstract values.")
    low, high = -math.inf if min is None else min, math.inf if max is None else max
    tensors = tuple(limit for limit in (low, high) if isinstance(limit, Tensor))
    if tensors:
        low, high = (torch.as_tensor(limit).to(tensors[0]) for limit in (low, high))
        low = torch.minimum(low, high)  # where they cross, torch gives the upper one
    elif low > high:
        low = high
    constant = len(tensors) == 0 and low == high
    finite = tuple(kink(p, p) for p in (low, high) if isinstance(p, Tensor) or math.isfinite(p))
    return Function(
        value=lambda x: torch.clamp(x, min, max),  # type: ignore[arg-type]
        derivative=torch.zeros_like if constant else lambda x: ((x >= low) & (x <= high)).to(x.dtype),
        shape=Ramp(finite, low=low, high=high),
        lipschitz=0.0 if constant else 1.0,
        parameters=tensors,
        parameter_shape=torch.broadcast_shapes(*(limit.shape for limit in tensors)),
    )


@entry(torch.clamp_min)
def clamp_min(min: float | Tensor) -> Function:
    return clamp(min=min)


@entry(torch.clamp_max)
def clamp_max(max: float | Tensor) -> Function:
    return clamp(max=max)


@entry(F.hardtanh)
def hardtanh(min_val: float = -1.0, max_val: float = 1.0) -> Function:
    return clamp(min_val, max_val)


@entry(F.relu6)
def relu6() -> Function:
    return clamp(0.0, 6.0)


@entry(F.softshrink)
def softshrink(lambd: float = 0.5) -> Function:
    return Function(
        value=lambda x: F.softshrink(x, lambd),
        derivative=lambda x: (x.abs() > lambd).to(x.dtype),
        shape=Polygon((kink(-lambd, 0.0), kink(lambd, 0.0))),
        lipschitz=1.0,
    )


@entry(F.hardshrink)
def hardshrink(lambd: float = 0.5) -> Function:
    jumps = (Corner(-lambd, -lambd, 0.0, 0.0), Corner(lambd, 0.0, 0.0, lambd))
    return Function(
        value=lambda x: F.hardshrink(x, lambd),
        derivative=lambda x: (x.abs() > lambd).to(x.dtype),
        shape=Polygon(jumps if lambd > 0 else ()),
        lipschitz=math.inf if lambd > 0 else 1.0,
    )


@entry(F.threshold)
def threshold(threshold: float, value: float) -> Function:
    return Function(
        value=lambda x: F.threshold(x, threshold, value),
        derivative=lambda x: (x > threshold).to(x.dtype),
        shape=Polygon((Corner(threshold, value, value, threshold),), rises=True if value <= threshold else None),
        lipschitz=1.0 if value == threshold else math.inf,
    )


@entry(torch.heaviside)
def heaviside(values: Tensor) -> Function:
    inside = bool(((values >= 0) & (values <= 1)).all())
    return Function(
        value=lambda x: torch.where(x > 0, 1.0, torch.where(x < 0, 0.0, values.to(x))),
        derivative=torch.zeros_like,
        shape=Polygon((Corner(0.0, 0.0, values, 1.0),), rises=True if inside else None),
        lipschitz=math.inf,
        parameters=(values,),
        parameter_shape=values.shape,
    )


@entry(torch.round)
def round_(*, decimals: int = 0) -> Function:
    if decimals != 0:
        raise _wanted("round", "decimals", "0", decimals)
    return Function(torch.round, torch.zeros_like, Staircase(0.5), lipschitz=math.inf)


@entry(F.elu)
def elu(alpha: float = 1.0) -> Function:
    if alpha < 0:
        raise _wanted("elu", "alpha", ">= 0", alpha)
    return Function(
        value=lambda x: F.elu(x, alpha),
        derivative=lambda x: torch.where(x > 0, 1.0, alpha * x.clamp(max=0).exp()),
        shape=Curved(convex=True, bends=() if alpha <= 1 else (0.0,), kinked=True),  # above 1 it bends down at 0
        lipschitz=max(1.0, alpha),
    )


@entry(F.celu)
def celu(alpha: float = 1.0) -> Function:
    if alpha <= 0:
        raise _wanted("celu", "alpha", "> 0", alpha)
    return Function(
        value=lambda x: F.celu(x, alpha),
        derivative=lambda x: (x.clamp(max=0) / alpha).exp(),
        shape=Curved(convex=True),
        lipschitz=1.0,
    )


@entry(F.softplus)
def softplus(beta: float = 1.0, threshold: float = 20.0) -> Function:
    if beta <= 0:
        raise _wanted("softplus", "beta", "> 0", beta)
    # Beyond the threshold torch returns x itself: the function steps down there, and follows a curve just above.
    knee = threshold / beta
    peak = (max(threshold, 0.0) + math.log1p(math.exp(-abs(threshold)))) / beta
    negligible = peak - knee <= 2.0**-24 * abs(knee)  # a rounding of float32
    return Function(
        value=lambda x: F.softplus(x, beta, threshold),
        derivative=lambda x: torch.where(beta * x > threshold, 1.0, torch.sigmoid(beta * x)),
        shape=Stepped(knee, before=peak, after=knee),
        lipschitz=1.0 if negligible else math.inf,
    )


@entry(F.gelu)
def gelu(*, approximate: str = "none") -> Function:
    if approximate == "none":
        bend = math.sqrt(2)
        return Function(F.gelu, _gelu_slope, _valley(-0.7517915246935645, -bend, bend), lipschitz=1.128904145185155)
    bend = 1.4185040087908284
    return Function(
        value=lambda x: F.gelu(x, approximate=approximate),
        derivative=_gelu_tanh_slope,
        shape=_valley(-0.7524614220710163, -bend, bend),
        lipschitz=1.128993068658772,
    )


@entry(torch.pow)
def power(exponent: float | Tensor) -> Function:
    if isinstance(exponent, Tensor):
        if exponent.dim() > 0:
            raise _wanted("pow", "exponent", "as one number", f"a tensor {tuple(exponent.shape)}")
        if exponent.requires_grad:
            raise _wanted("pow", "exponent", "as a constant", "a tensor that is trained")
        exponent = exponent.item()
    if not isinstance(exponent, (int, float)) or not math.isfinite(exponent):
        raise _wanted("pow", "exponent", "as a finite number", repr(exponent))
    p = float(exponent)
    shape, defined = _power_shape(p)
    return Function(
        value=lambda x: torch.pow(x, exponent),
        derivative=lambda x: p * torch.pow(x, p - 1) if p != 0 else torch.zeros_like(x),
        shape=shape,
        lipschitz=p if p in (0.0, 1.0) else math.inf,
        defined=defined,
    )


def _power_shape(p: float) -> tuple[Curved, Definition | None]:
    if p != int(p):  # of numbers >= 0 alone
        return Curved(convex=p < 0 or p > 1, rises=p > 0), _above(0, closed=p > 0)
    if p >= 0:
        if p % 2 == 1:
            return _S_CONCAVE_FIRST if p > 1 else _CONVEX, None
        return _ROUND_VALLEY, None
    if p % 2 == 1:
        return Curved(convex=False, bends=(0.0,), rises=False), _NOT_ACROSS_0
    return Curved(convex=True, rises=True, turn=0.0), _NOT_ACROSS_0
