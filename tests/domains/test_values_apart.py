"""Samples of a batch, handles of one value, and threads: what one does must not reach the other unseen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fastbound as fb
from fastbound.errors import MissingRuleError, TapeError

X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
W = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
SQUARE = torch.randn(2, 2, generator=torch.Generator().manual_seed(2))

MIXED: dict[str, Callable[[Any], Any]] = {
    "difference of samples": lambda v: v[:1] - v[1:],
    "mean of the batch": lambda v: v - v.mean(0, True),
    "flipped batch": lambda v: v - v.flip(0),
    "sum over the batch": lambda v: v.sum(0).unsqueeze(0),
    "a batch of features": lambda v: v.reshape(1, 6) @ torch.ones(6, 2),
    "a layer over the batch": lambda v: torch.nn.functional.linear(v.sum(1), SQUARE).unsqueeze(1),
    "transposed": lambda v: (v.T @ SQUARE).T,
    "einsum over the batch": lambda v: torch.einsum("bi,b->i", v, SQUARE[0]).unsqueeze(0),
}


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("method", ["ibp", "hbox", "zbox", "deepz", "crown-ibp", "crown"])
def test_functions_that_mix_samples_hold_or_are_refused(name: str, method: str) -> None:
    function, box = MIXED[name], fb.linf_box(X, 0.3)
    try:
        bounds = fb.bound(function, box, method=method)
        lower, upper = bounds.lower, bounds.upper
    except MissingRuleError as error:
        assert method != "ibp"
        assert "samples" in str(error)
        return
    for _ in range(200):
        value = function(X + 0.3 * (2 * torch.rand(2, 3) - 1).sign())
        assert (value >= lower - 1e-5).all() and (value <= upper + 1e-5).all()


@pytest.mark.parametrize("method", ["ibp", "deepz", "hbox", "crown-ibp", "crown"])
def test_functions_of_one_number_a_sample(method: str) -> None:
    def function(v: Any) -> Any:
        return (v @ W).sum(1).sigmoid().mul(2.0).relu().unsqueeze(1)

    bounds = fb.bound(function, fb.linf_box(X, 0.3), method=method)
    values = torch.stack([function(X + 0.3 * (2 * torch.rand(2, 3) - 1)) for _ in range(200)])
    assert (values >= bounds.lower - 1e-5).all() and (values <= bounds.upper + 1e-5).all()


def test_limits_of_a_larger_shape_copy_the_value() -> None:
    limits, x = torch.tensor([[-0.1, 0.0, 0.2, -1.0]]), torch.randn(3, 1)

    def function(v: Any) -> Any:
        return v.clamp(limits) @ W[:1].T.new_ones(4, 3)

    for method in ("ibp", "deepz", "crown-ibp", "crown"):
        bounds = fb.bound(function, fb.linf_box(x, 0.3), method=method)
        values = torch.stack([function(x + 0.3 * (2 * torch.rand(3, 1) - 1)) for _ in range(200)])
        assert (values >= bounds.lower - 1e-5).all() and (values <= bounds.upper + 1e-5).all()
    for limit in (torch.full((4,), -5.0), torch.full((2, 1, 1), -5.0)):
        with pytest.raises(NotImplementedError, match="copies elements and so changes the norm"):
            fb.lipschitz(torch.zeros(1, 1)).clamp(min=limit)


def test_an_index_is_copied_when_it_is_recorded() -> None:
    wanted = fb.bound(lambda v: v[:, :2] @ W[:2], fb.linf_box(X, 0.1), method="crown").lower
    for pick in (lambda v, index: v[:, index], lambda v, index: v.index_select(1, index)):
        index = torch.tensor([0, 1])
        out = pick(fb.linf_box(X, 0.1), index) @ W[:2]
        index.add_(1)
        torch.testing.assert_close(fb.bound(out, method="crown").lower, wanted)


@pytest.mark.parametrize(
    "make", [lambda x: fb.linf_box(x, 0.1), lambda x: fb.zonotope(fb.linf_box(x, 0.1)), fb.lipschitz]
)
def test_a_product_by_one_is_a_handle_of_its_own(make: Callable[[Tensor], Any]) -> None:
    def function(x: Any) -> Any:
        product = x * 1
        product.relu_()
        return product + x

    torch.testing.assert_close(function(make(X)).nominal, X.relu() + X)


@pytest.mark.parametrize("write", ["add_", "mul_", "clamp_"])
def test_writing_in_place_keeps_the_type(write: str) -> None:
    operand = torch.ones(3, dtype=torch.float64)
    for value in (fb.linf_box(X, 0.1), X.clone()):
        getattr(value, write)(operand)
        assert value.dtype == torch.float32


def test_a_trained_exponent_and_a_pole_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="a tensor that is trained"):
        fb.linf_box(X, 0.1) ** torch.nn.Parameter(torch.tensor(2.0))
    with pytest.raises(NotImplementedError, match="a finite number"):
        fb.linf_box(X, 0.1) ** float("inf")
    lower = torch.tensor([[torch.pi / 2]], dtype=torch.float64)
    with pytest.raises(ValueError, match="between two poles"):
        torch.tan(fb.box(lower, lower + 0.4))


def test_lines_of_functions_that_overflow_are_finite() -> None:
    tiny = torch.full((1, 4), 3.2e-24)
    for function in (torch.reciprocal, torch.log, torch.rsqrt):
        bounds = fb.bound(function, fb.box(tiny, tiny * 1.03), method="crown-ibp")
        assert (bounds.lower <= function(tiny) + 1e-5 * function(tiny).abs()).all() and bounds.upper.isfinite().all()


THREADS = """
import threading, fastbound as fb, torch
barrier, errors = threading.Barrier(4), []

def use(name):
    barrier.wait()
    try:
        getattr(fb, name)
        torch.nn.functional.gelu(fb.linf_box(torch.rand(2, 3), 0.1))
    except Exception as error:
        errors.append(repr(error))

threads = [threading.Thread(target=use, args=(name,)) for name in ("linf_box", "lipschitz", "zonotope", "bound")]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(errors)
"""


def test_threads_may_use_the_library_for_the_first_time_together() -> None:
    run = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr


def test_parameters_of_functions_are_watched_by_the_tape() -> None:
    weight, limit, values = torch.tensor([0.2]), torch.tensor(0.1), torch.tensor(0.5)
    for function, parameter in (
        (lambda v: torch.prelu(v, weight), weight),
        (lambda v: v.clamp(min=limit), limit),
        (lambda v: torch.heaviside(v, values), values),
    ):
        out = function(fb.linf_box(X, 0.1)) @ W
        parameter.add_(0.1)
        with pytest.raises(TapeError, match="changed in place"):
            _ = fb.bound(out, method="crown").lower
    trained = torch.nn.PReLU()
    with torch.no_grad():
        out = trained(fb.linf_box(X, 0.1))
    with pytest.raises(TapeError, match="computed under no_grad"):
        _ = fb.bound(out, method="crown-ibp").lower
    for method in ("ibp", "crown-ibp", "crown", "deepz"):
        trained.zero_grad()
        fb.bound(trained, fb.linf_box(X, 0.1), method=method).lower.sum().backward()
        assert trained.weight.grad is not None and trained.weight.grad.abs().sum() > 0
