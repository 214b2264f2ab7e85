"""Sums that the Triton kernels add up: calls that cross their tiles, and what an element may be off by.

An element is a sum of n products. As a share of the sum of their magnitudes it may be off by:

* IEEE float32: gamma(n), one rounding a product.
* bf16, fp16: gamma(2 (n + n / 4)). A product of two of them is exact in float32. A tensor core adds up a group of 8
  products or more and the sum so far: it shifts all to one exponent and cuts off all digits after the last one, which
  loses up to twice as much as rounding, for each product, each sum so far and each result. Stored results are rounded
  once more.
* TF32: the same, and (1 + 2^-10)^2 - 1 a product. An operand loses 13 digits, 2^-10 of it where they are cut off.
* TF32 in three passes: the same, and 3 x 2^-20 a product. An operand is a = a' + a" + r with a', a" of TF32,
  |a"| <= 2^-10 |a| and |r| <= 2^-20 |a|; of its product with b = b' + b" + s are left out a" b", r b and a s, and what
  is smaller by 2^-10. The sums with a" or b" are small, and so is what they are off by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from contract import (
    as_tuple,
    cotangents,
    expected_gradients,
    expected_outputs,
    forward_names,
    gamma,
    gradient_names,
    mapped,
    reference,
    rounding,
    rounding_bwd,
)
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed: the values of its kernels were NOT tested")

from fastbound.kernels import _support

STEMS = ("interval_linear", "interval_conv2d", "crown_linear", "crown_conv2d")
PRECISIONS = {
    "ieee": torch.float32,
    "tf32": torch.float32,
    "tf32x3": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
# One process either interprets or compiles, so the other device is no test that was left out.
DEVICES = ["cpu"] if _support.INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)]
COPIED = "a tensor .* is copied for the Triton kernels:RuntimeWarning"

every_device = pytest.mark.parametrize("device", DEVICES)
every_stem = pytest.mark.parametrize("stem", STEMS)


# ---- shapes that cross the shipped tiles -----------------------------------------------------------------------------


def normal(*shape: int) -> Tensor:
    """Numbers of both signs, a tenth of them exact zeros."""
    generator = torch.Generator().manual_seed(math.prod(shape))
    out = torch.randn(shape, generator=generator, dtype=torch.float64)
    out[torch.rand(shape, generator=generator) < 0.1] = 0
    return out.float()


# Channels are multiples of 16, as those of networks, and are read in whole words. Tiles have 64 or 128 features and
# pixels, 64 channels or fewer, and parts of 8192 pixels; the last one on each side is not full. "narrow" and "wide":
# the class of the forward's outputs; the input gradient then is of the other. "parts": two in a weight gradient.
STRIDED = ((2, 1), (1, 0), (1, 2), 2)  # stride, padding, dilation, groups of a 3 x 2 kernel: 13 x 9 to 7 x 7
HALVED = ((1, 2), (1, 1), (1, 1), 1)  # of a 3 x 3 kernel: 7 x 13 to 7 x 7
WIDENED = ((1, 1), (0, 1), (1, 1), 1)  # of a 1 x 2 kernel: 64 x 64 to 64 x 65
LARGE: dict[str, dict[str, tuple[Any, ...]]] = {
    "interval_linear": {
        "narrow": ((2, 131, 80), (48, 80)),
        "wide": ((2, 131, 48), (144, 48)),
        "parts": ((2, 8200, 16), (80, 16)),
    },
    "interval_conv2d": {
        "narrow": ((2, 3, 160, 13, 9), (96, 80, 3, 2), *STRIDED),
        "wide": ((2, 3, 48, 7, 13), (144, 48, 3, 3), *HALVED),
        "parts": ((2, 2, 16, 64, 64), (48, 16, 1, 2), *WIDENED),
    },
    "crown_linear": {
        "narrow": ((2, 3, 23, 80), (80, 48)),
        "wide": ((2, 3, 23, 48), (48, 144)),
        "parts": ((2, 41, 100, 80), (80, 16)),
    },
    "crown_conv2d": {
        "narrow": ((1, 3, 160, 7, 7), (160, 48, 3, 2), (13, 9), *STRIDED),
        "wide": ((1, 3, 48, 7, 7), (48, 144, 3, 3), (7, 13), *HALVED),
        "parts": ((1, 2, 48, 64, 65), (48, 16, 1, 2), (64, 64), *WIDENED),
    },
}


def large(stem: str, name: str) -> tuple[Any, ...]:
    first, weight, *rest = LARGE[stem][name]
    parameters = normal(*weight), normal(weight[0])
    if stem.startswith("crown"):
        return normal(*first), *parameters, *rest
    return normal(*first), normal(*first[1:]).abs(), *parameters, *rest


def aligned_between_nan(t: Tensor) -> Tensor:
    """The same values in the order that the kernels read, from an aligned address, between two walls of NaN: no copy.

    An unmasked load then reads the NaN before or after a tensor.
    """
    wall = 64
    buffer = t.new_full((t.numel() + 2 * wall,), float("nan"))
    order = (*range(t.dim() - 3), t.dim() - 2, t.dim() - 1, t.dim() - 3) if t.dim() >= 4 else tuple(range(t.dim()))
    inner = buffer[wall : wall + t.numel()].view([t.shape[d] for d in order])
    return inner.copy_(t.permute(order)).permute([order.index(d) for d in range(t.dim())])


# ---- what an element may be off by -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sum:
    """How an element comes about: ``terms`` products, of ``kind``

    * ``kernel``: multiplied in the precision that is tested;
    * ``plain``: multiplied and added in float32, whatever the precision;
    * ``torch``: a product of torch's, with the digits that its flags allow, of sums in the dtype of the tensors.
    """

    terms: int
    kind: str = "kernel"


def sums(stem: str, args: tuple[Any, ...]) -> tuple[tuple[Sum, ...], tuple[Sum, ...]]:
    """Of the outputs, and of the gradients in the order of `gradient_names`."""
    first, weight = args[0], args[forward_names(stem).index("weight")]
    taps = weight.shape[2:].numel()
    channels, features = weight.shape[1] * taps, weight.shape[0] * taps
    if stem.startswith("interval"):
        like = as_tuple(getattr(reference(stem), f"{stem}_fwd")(*mapped(args, lambda t: t.double())))[1]
        pixels, streams = like.numel() // max(1, weight.shape[0]), first.shape[0]
        forward = Sum(channels + 1), Sum(channels)
        of_weight = Sum((streams + 1) * pixels)
        return forward, (Sum(features), Sum(features), of_weight, Sum(streams * pixels, "plain"))
    rows = first.shape[:2].numel()
    pixels = first.numel() // max(1, rows * weight.shape[0])
    forward = Sum(features), Sum(2 * pixels * weight.shape[0], "plain")
    return forward, (Sum(channels + 2), Sum(rows * pixels), Sum(pixels + rows, "torch"))


OPERANDS = {"tf32": (1 + 2**-10) ** 2 - 1, "tf32x3": 3 * 2**-20 * (1 + 2**-9)}


def allowed(wanted: Tensor, magnitude: Tensor, found: Sum, precision: str, truncated: bool) -> Tensor:
    """``truncated``: results in half precision are cut off when stored, not rounded."""
    dtype = PRECISIONS[precision]
    half = dtype != torch.float32
    roundings = found.terms + 8  # bias, sign and parts are added after the sum
    lost = 0.0
    if found.kind == "kernel" and precision != "ieee":
        roundings, lost = 2 * (roundings + roundings // 4), OPERANDS.get(precision, 0.0)
    if found.kind == "torch":
        lost = OPERANDS["tf32"] if precision.startswith("tf32") else 0.0
        lost += found.terms * torch.finfo(dtype).eps if half else 0.0
    off = (lost + gamma(roundings, torch.float32) * (1 + lost)) * magnitude.abs()
    stored = torch.finfo(dtype)
    if half:
        unit = stored.eps if truncated else stored.eps / 2
        return off + unit * (wanted.abs() + off + 2 * stored.tiny)
    return off + 4 * stored.tiny


@dataclass(frozen=True)
class Expected:
    """The float64 values of outputs and gradients by name, with what each may be off by."""

    values: dict[str, Tensor]
    allowed: dict[str, Tensor]

    def beyond(self, found: dict[str, Tensor]) -> dict[str, float]:
        """By how much the elements that are off by more exceed it at most, by name; NaN exceeds everything."""
        result = {}
        for name, value in found.items():
            error = (value.detach().double() - self.values[name]).abs()
            outside = ~(error <= self.allowed[name])
            if outside.any():
                result[name] = (error[outside] / self.allowed[name][outside]).max().item()
        return result


def expected(stem: str, args: tuple[Any, ...], grads: Any, precision: str, truncated: bool = False) -> Expected:
    names = gradient_names(stem, args)
    outputs = expected_outputs(stem, args)
    gradients = expected_gradients(stem, grads, args, names)
    (_, of_outputs), (_, of_gradients) = rounding(stem, args), rounding_bwd(stem, grads, args)
    counts = sums(stem, args)
    labels = [*(f"output {i}" for i in range(len(outputs))), *(f"gradient of {name}" for name in names)]
    rows = zip(labels, (*outputs, *gradients), (*of_outputs, *of_gradients), (*counts[0], *counts[1]))
    values, bounds = {}, {}
    for label, value, magnitude, count in rows:
        if value is not None:
            values[label], bounds[label] = value, allowed(value, magnitude, count, precision, truncated)
    return Expected(values, bounds)


def assert_agrees_within(wanted: Expected, found: dict[str, Tensor], dtype: torch.dtype) -> None:
    assert found.keys() == wanted.values.keys()
    for name, value in found.items():
        assert value.shape == wanted.values[name].shape and value.dtype == dtype, f"{name}: {value.dtype}"
        assert not value.isnan().any(), f"{name}: NaN"
    assert not wanted.beyond(found), f"off by these multiples of what is allowed: {wanted.beyond(found)}"


def prepared(stem: str, args: tuple[Any, ...], dtype: torch.dtype) -> tuple[tuple[Any, ...], tuple[Tensor, ...]]:
    """The arguments in a dtype, and gradients for the outputs."""
    args = mapped(args, lambda t: t.to(dtype))
    outputs = as_tuple(getattr(reference(stem), f"{stem}_fwd")(*mapped(args, lambda t: t.double())))
    return args, tuple(g.to(dtype) for g in cotangents(outputs))


def products(stem: str, args: tuple[Any, ...]) -> set[str]:
    """The names of what the kernels multiply in the precision asked for."""
    outputs, gradients = sums(stem, args)
    names = [f"output {i}" for i in range(len(outputs))]
    names += [f"gradient of {name}" for name in gradient_names(stem, args)]
    return {name for name, found in zip(names, (*outputs, *gradients)) if found.kind == "kernel"}
