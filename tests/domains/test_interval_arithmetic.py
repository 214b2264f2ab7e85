"""Arithmetic of intervals with numbers, tensors and one another, in every form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fastbound as fb

t = torch.tensor([[0.5, -2.0, 0.0], [1.0, 3.0, -0.25]])
row, tall = torch.tensor([1.0, -1.0, 2.0]), torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1))

ARITHMETIC: dict[str, Callable[[Any], Any]] = {
    "x + number": lambda x: x + 1.5,
    "number + x": lambda x: -2 + x,
    "x + tensor": lambda x: x + t,
    "tensor + x": lambda x: t + x,
    "torch.add": lambda x: torch.add(t, x, alpha=-3),
    "torch.add of x": lambda x: torch.add(x, t, alpha=2),
    "x - number": lambda x: x - 0.5,
    "number - x": lambda x: 1 - x,
    "x - tensor": lambda x: x - t,
    "tensor - x": lambda x: t - x,
    "torch.sub": lambda x: torch.sub(t, x, alpha=2.0),
    "torch.rsub": lambda x: torch.rsub(x, t),
    "x * number": lambda x: x * 3,
    "number * x": lambda x: -0.5 * x,
    "x * 0": lambda x: x * 0,
    "x * 1": lambda x: x * 1,
    "x * tensor": lambda x: x * t,
    "tensor * x": lambda x: t * x,
    "x.mul": lambda x: x.mul(t),
    "x / number": lambda x: x / -4,
    "x / tensor": lambda x: x / (t - 5),
    "torch.div": lambda x: torch.div(x, row),
    "negated": lambda x: -x,
    "broadcast row": lambda x: x + row,
    "broadcast row product": lambda x: row * x,
    "added dimension": lambda x: x + tall,
    "added dimension product": lambda x: x * tall,
    "added dimension difference": lambda x: tall - x,
    "zero-dimensional tensor": lambda x: x * torch.tensor(-2.0) + torch.tensor(1.0),
    "integer tensor": lambda x: x * torch.tensor([1, -2, 0]) + torch.tensor([1, 2, 3]),
    "x + Interval": lambda x: x + x.flip(0),
    "x - Interval": lambda x: x - x.flip(0),
    "x - 2 Interval": lambda x: torch.sub(x, x.flip(0), alpha=2),
    "Interval of other shape": lambda x: x + x[:1],
    "Interval of more dimensions": lambda x: x - x.unsqueeze(1),
    "sum()": lambda x: sum([x, x.flip(0), t]),
    "double tensor": lambda x: x + t.double(),
    "double product": lambda x: t.double() * x,
}


def reached(function: Callable[[Any], Any], x: Tensor, eps: Tensor, count: int = 300) -> tuple[Tensor, Tensor]:
    values = torch.stack([function(x + eps * (2 * torch.rand_like(x) - 1).sign()) for _ in range(count)])
    return values.amin(0), values.amax(0)


@pytest.mark.parametrize("nominal", [True, False])
@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic(name: str, nominal: bool) -> None:
    """Every element has at most two independent inputs, so random corners attain both bounds."""
    function = ARITHMETIC[name]
    x, eps = torch.randn(2, 3), torch.rand(2, 3)
    out, plain = function(fb.linf_box(x, eps, nominal=nominal)), function(x)
    assert out.shape == plain.shape and out.dtype == plain.dtype == out.lower.dtype == out.upper.dtype
    assert out.node.stack.dtype == out.node.radius.dtype
    if nominal:
        assert torch.allclose(out.nominal, plain, rtol=1e-5, atol=1e-6)
    lower, upper = reached(function, x, eps)
    if name not in ("Interval of other shape", "Interval of more dimensions"):  # x + x is not known to be 2 x
        assert torch.allclose(out.lower, lower, rtol=1e-4, atol=1e-5)
        assert torch.allclose(out.upper, upper, rtol=1e-4, atol=1e-5)
    assert (out.lower <= lower + 1e-5).all() and (out.upper >= upper - 1e-5).all()


@pytest.mark.parametrize("divisor", [torch.tensor(3.0), torch.tensor(3), torch.tensor([3, -7, 11])])
def test_a_divisor_of_another_dtype_loses_no_digits(divisor: Tensor) -> None:
    x = torch.randn(2, 3, dtype=torch.float64)
    assert torch.allclose((fb.linf_box(x, 0.1) / divisor).nominal, x / divisor, rtol=1e-15)


def test_product_of_intervals() -> None:
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    out = fb.linf_box(x, 0.4) * fb.linf_box(y, 0.3)
    corners = torch.stack([(x + a) * (y + b) for a in (-0.4, 0.4) for b in (-0.3, 0.3)])
    assert torch.allclose(out.lower, corners.amin(0), atol=1e-6) and torch.allclose(
        out.upper, corners.amax(0), atol=1e-6
    )


def test_one_operand_without_nominal() -> None:
    x = torch.randn(2, 3)
    out = fb.linf_box(x, 0.1) + fb.linf_box(x, 0.1, nominal=False)
    assert out.nominal is None and torch.allclose(out.radius, torch.full((2, 3), 0.2))


def test_integer_and_unknown_conversions_are_refused() -> None:
    box = fb.linf_box(torch.rand(2, 3), 0.1)
    with pytest.raises(TypeError, match="integers"):
        box.to(torch.int64)
    with pytest.raises(NotImplementedError, match="div"):
        torch.div(box, 2, rounding_mode="floor")
    with pytest.raises(NotImplementedError, match="bicubic"):
        F.interpolate(fb.linf_box(torch.rand(1, 1, 4, 4), 0.1), scale_factor=2, mode="bicubic")
