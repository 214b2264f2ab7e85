"""Boxes: what they hold, and every way in which asking for one can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastbound as fb

X = torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("nominal", [True, False])
def test_linf_box(dtype: torch.dtype, nominal: bool) -> None:
    x = X.to(dtype)
    box = fb.linf_box(x, 0.2, nominal=nominal)
    assert torch.allclose(box.lower, x - 0.2) and torch.allclose(box.upper, x + 0.2)
    assert box.dtype == box.lower.dtype == box.radius.dtype == dtype and box.shape == x.shape
    assert torch.equal(box.nominal, x) if nominal else box.nominal is None


def test_clipping() -> None:
    box = fb.linf_box(X, 0.3, lower=0.0, upper=1.0)
    assert torch.allclose(box.lower, (X - 0.3).clamp(min=0), atol=1e-7)
    assert torch.allclose(box.upper, (X + 0.3).clamp(max=1), atol=1e-7)
    assert torch.equal(box.nominal, X) and not torch.equal(box.center, X)
    one_sided = fb.linf_box(X, 0.3, upper=1.0)
    assert torch.allclose(one_sided.lower, X - 0.3) and one_sided.upper.max() <= 1 + 1e-6
    means = torch.tensor([0.0, -0.5]).view(2, 1, 1)
    assert torch.allclose(fb.linf_box(X, 0.3, lower=means).lower, torch.maximum(X - 0.3, means), atol=1e-7)


@pytest.mark.parametrize(
    "eps",
    [
        0.1,
        0,
        torch.tensor(0.1),
        torch.full((2, 1, 1), 0.1),
        torch.rand(3, 1, 1, 1),
        torch.rand(3, 2, 4, 5),
        torch.rand(5),
        torch.rand(2, 1, 1).double(),
    ],
    ids=lambda e: str(tuple(e.shape)) if isinstance(e, Tensor) else str(e),
)
def test_eps_may_be_a_number_or_broadcast(eps: Any) -> None:
    box = fb.linf_box(X, eps)
    wanted = (eps.float() if isinstance(eps, Tensor) else torch.tensor(float(eps))).expand_as(X)
    assert torch.allclose(box.radius, wanted) and box.radius.dtype == torch.float32
    clipped = fb.linf_box(X, eps, 0.0, 1.0)
    assert torch.allclose(clipped.lower, (X - wanted).clamp(min=0), atol=1e-6)


def test_box_of_two_ends() -> None:
    lower, upper = X - 0.1, X + torch.rand_like(X)
    box = fb.box(lower, upper)
    assert torch.allclose(box.lower, lower, atol=1e-6) and torch.allclose(box.upper, upper, atol=1e-6)
    assert box.nominal is None and torch.equal(fb.box(lower, upper, nominal=X).nominal, X)
    point = fb.box(X, X)
    assert torch.equal(point.lower, X) and not point.radius.any()


def test_gradients_flow_into_the_box() -> None:
    layer = nn.Linear(4, 3).double()
    lower, width, clean = (torch.rand(2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))

    def ends(lower: Tensor, width: Tensor, clean: Tensor) -> tuple[Tensor, ...]:
        out = layer(fb.box(lower, lower + width, nominal=clean)).relu()
        return out.lower, out.upper, out.nominal

    assert torch.autograd.gradcheck(ends, (lower, width, clean))

    def ball(x: Tensor, eps: Tensor) -> tuple[Tensor, ...]:
        out = layer(fb.linf_box(x, eps, 0.0, 2.0)).relu()
        return out.lower, out.upper, out.nominal

    assert torch.autograd.gradcheck(ball, (clean, torch.rand(4, dtype=torch.float64, requires_grad=True)))


@pytest.mark.parametrize("nominal", [True, False])
@pytest.mark.parametrize("limit", [None, 0.0])
def test_the_box_does_not_follow_its_tensors(nominal: bool, limit: float | None) -> None:
    """A loader may reuse its buffers: values of the tape are immutable."""
    x, eps = X.clone(), torch.full_like(X, 0.1)
    box = fb.linf_box(x, eps, limit, nominal=nominal)
    lower, upper = box.lower.clone(), box.upper.clone()
    x.zero_()
    eps.zero_()
    assert torch.equal(box.lower, lower) and torch.equal(box.upper, upper)
    assert not nominal or torch.equal(box.nominal, X)


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "eps negative": (lambda: fb.linf_box(X, -0.1), ValueError, r"eps: .*>= 0"),
    "eps negative somewhere": (lambda: fb.linf_box(X, torch.tensor([0.1, -0.1]).view(2, 1, 1)), ValueError, "eps"),
    "eps NaN": (lambda: fb.linf_box(X, NAN), ValueError, r"eps: .*NaN"),
    "eps NaN somewhere": (lambda: fb.linf_box(X, torch.tensor([0.1, NAN]).view(2, 1, 1)), ValueError, "NaN"),
    "eps infinite": (lambda: fb.linf_box(X, INF), ValueError, "eps: wanted finite"),
    "eps per sample": (lambda: fb.linf_box(X, torch.rand(3)), ValueError, r"eps\.view\(-1, 1, 1, 1\)"),
    "eps per sample of features": (lambda: fb.linf_box(X[:, 0, 0], torch.rand(3)), ValueError, r"eps\.view\(-1, 1\)"),
    "eps of another shape": (lambda: fb.linf_box(X, torch.rand(7)), ValueError, r"eps: shape \(7,\).*\(3, 2, 4, 5\)"),
    "eps of more dimensions": (lambda: fb.linf_box(X, torch.rand(2, 3, 2, 4, 5)), ValueError, "eps: shape"),
    "eps integer": (lambda: fb.linf_box(X, torch.tensor(1)), TypeError, "eps: .*int64"),
    "eps text": (lambda: fb.linf_box(X, "0.1"), TypeError, "eps: wanted a number or a tensor, got str"),
    "eps None": (lambda: fb.linf_box(X, None), TypeError, "eps: .*NoneType"),
    "x integer": (lambda: fb.linf_box((X * 255).byte(), 1), TypeError, r"x: .*uint8.*/ 255"),
    "x half": (lambda: fb.linf_box(X.half(), 0.1), TypeError, "x: torch.float16.*CPU.*float32"),
    "x bfloat16": (lambda: fb.linf_box(X.bfloat16(), 0.1), TypeError, "x: torch.bfloat16.*CPU"),
    "x complex": (lambda: fb.linf_box(X + 0j, 0.1), TypeError, "x: .*complex64"),
    "x NaN": (lambda: fb.linf_box(torch.where(X > 0.9, NAN, X), 0.1), ValueError, "x: contains NaN"),
    "x infinite": (lambda: fb.linf_box(torch.where(X > 0.9, INF, X), 0.1), ValueError, "x: contains NaN or inf"),
    "x no tensor": (lambda: fb.linf_box([0.1, 0.2], 0.1), TypeError, "x: wanted a torch.Tensor, got list"),
    "x an Interval": (lambda: fb.linf_box(fb.linf_box(X, 0.1), 0.1), TypeError, "x: .*Interval"),
    "x without samples": (lambda: fb.linf_box(X[:0], 0.1), ValueError, r"non-empty batch.*\(0, 2, 4, 5\)"),
    "x a number": (lambda: fb.linf_box(torch.tensor(0.5), 0.1), ValueError, r"batch.*\(\)"),
    "x below": (lambda: fb.linf_box(X - 1, 0.1, lower=0.0), ValueError, "x: lies below `lower`"),
    "x above": (lambda: fb.linf_box(X + 1, 0.1, upper=1.0), ValueError, "x: lies above `upper`"),
    "limit of another shape": (lambda: fb.linf_box(X, 0.1, lower=torch.zeros(7)), ValueError, r"lower: shape \(7,\)"),
    "ends swapped": (lambda: fb.box(X + 0.1, X), ValueError, "lower: exceeds `upper`"),
    "ends crossed once": (lambda: fb.box(X, torch.where(X.max() == X, X - 1e-3, X)), ValueError, "exceeds"),
    "ends of other shapes": (lambda: fb.box(X, X[:, :1]), ValueError, r"upper: .*\(3, 2, 4, 5\).*\(3, 1, 4, 5\)"),
    "ends of other dtypes": (lambda: fb.box(X, X.double()), ValueError, "upper: .*float32.*float64"),
    "ends integer": (lambda: fb.box(X.int(), X.int()), TypeError, "lower: .*int32"),
    "ends NaN": (lambda: fb.box(X, torch.where(X > 0.9, NAN, X)), ValueError, "upper: contains NaN"),
    "lower end NaN": (lambda: fb.box(torch.where(X > 0.9, NAN, X), X), ValueError, "lower: contains NaN"),
    "ends half": (lambda: fb.box(X.half(), X.half()), TypeError, "lower: torch.float16"),
    "ends without samples": (lambda: fb.box(X[:0], X[:0]), ValueError, "non-empty batch"),
    "nominal of another shape": (lambda: fb.box(X, X + 1, nominal=X[0]), ValueError, "nominal: wanted shape"),
    "nominal NaN": (
        lambda: fb.box(X, X + 1, nominal=torch.where(X > 0.9, NAN, X)),
        ValueError,
        "nominal: contains NaN",
    ),
    "model of another dtype": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(40, 2).double())(fb.linf_box(X, 0.1)),
        TypeError,
        r"linear in 1 \(Linear\): the box is torch.float32, the weight torch.float64",
    ),
    "convolution of another dtype": (
        lambda: nn.Conv2d(2, 3, 3)(fb.linf_box(X.double(), 0.1)),
        TypeError,
        r"conv2d.*\(Conv2d\).*float64.*float32",
    ),
    "layer of another width": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(41, 2))(fb.linf_box(X, 0.1)),
        ValueError,
        r"\(2, 41\).*40",
    ),
    "map of other channels": (
        lambda: nn.Conv2d(3, 3, 3)(fb.linf_box(X, 0.1)),
        ValueError,
        r"\(3, 3, 3, 3\).*\(3, 2, 4, 5\)",
    ),
    "map without batch": (lambda: nn.Conv2d(2, 3, 3)(fb.linf_box(X[0], 0.1)), ValueError, "batch of 4 dimensions"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_can_go_wrong_says_so(name: str) -> None:
    call, kind, message = WRONG[name]
    with pytest.raises(kind, match=message):
        call()
