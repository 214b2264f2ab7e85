"""torch.compile of an evaluation-mode bound, in one graph."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._inductor import config as inductor

import fastbound as fb

pytestmark = [
    pytest.mark.own_memory,
    pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler"),
]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.norm, self.conv = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        x = F.relu(self.stem(x))
        x = F.relu(self.norm(self.conv(x))) + x
        x = torch.cat([F.max_pool2d(x, 3)[:, :2], F.avg_pool2d(x, 3)[:, 2:]], 1)
        return self.head(torch.flatten(x, 1))


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Without vector instructions: finding out which the C++ compiler has takes longer than all the tests."""
    torch._dynamo.reset()
    with inductor.patch({"cpp.vec_isa_ok": False}):
        yield


def ends(model: nn.Module) -> Callable[[Tensor], tuple[Tensor, ...]]:
    def run(x: Tensor) -> tuple[Tensor, ...]:
        out = fb.bound(model, fb.linf_box(x, 0.1, 0.0, 1.0), method="ibp")
        return out.lower, out.upper, out.nominal

    return run


@pytest.mark.parametrize("converted", [False, True])
def test_a_compiled_bound_equals_eager(converted: bool) -> None:
    model = Block().eval()
    model.norm.running_var.uniform_(0.5, 2)
    model = fb.convert(model) if converted else model
    x = torch.rand(3, 2, 6, 6)
    with torch.no_grad():
        compiled = torch.compile(ends(model), fullgraph=True)(x)
        eager = ends(model)(x)
    for ours, theirs in zip(compiled, eager):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_margins_and_gradients() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x, spec = torch.rand(4, 5), fb.margin_spec(torch.tensor([0, 1, 2, 0]), 3)

    def loss(x: Tensor, spec: Tensor) -> Tensor:
        return fb.losses.robust_cross_entropy(fb.bound(model, fb.linf_box(x, 0.1), method="ibp", spec=spec))

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(x, spec)
    ours = torch.autograd.grad(compiled, list(model.parameters()))
    eager = loss(x, spec)
    assert torch.allclose(compiled, eager, rtol=1e-5)
    for a, b in zip(ours, torch.autograd.grad(eager, list(model.parameters()))):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_autocast_inside_a_compiled_step() -> None:
    """Both round the products; what lies between them may be rounded elsewhere by the compiler."""
    torch.manual_seed(0)
    model, x, labels = Block(), torch.rand(4, 2, 6, 6), torch.tensor([0, 2, 1, 1])

    def step(x: Tensor, labels: Tensor) -> Tensor:
        spec = fb.margin_spec(labels, 3)
        return fb.losses.robust_cross_entropy(fb.bound(model, fb.linf_box(x, 0.1), method="ibp", spec=spec))

    results = []
    for run in (step, torch.compile(step, fullgraph=True)):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = run(x, labels)
        loss.backward()
        results.append(torch.cat([loss.detach().flatten(), *(p.grad.flatten() for p in model.parameters())]))
    assert (results[1] - results[0]).norm() < 0.02 * results[0].norm()


@pytest.mark.parametrize("training", [False, True])
def test_singleprop_and_its_gradients(training: bool) -> None:
    model = Block().train(training)
    x = torch.rand(4, 2, 6, 6)

    def loss(x: Tensor) -> Tensor:
        return fb.losses.singleprop_cross_entropy(model(fb.singleprop(x, 0.1)), torch.tensor([0, 1, 2, 0]))

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(x)
    ours = torch.autograd.grad(compiled, list(model.parameters()))
    eager = loss(x)
    assert torch.allclose(compiled, eager, rtol=1e-5)
    theirs = torch.autograd.grad(eager, list(model.parameters()))
    largest = max(float(b.abs().max()) for b in theirs)  # a bias before batch statistics gets only rounding
    for a, b in zip(ours, theirs):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * largest)


def test_bad_values_are_still_refused() -> None:
    model = nn.Linear(5, 3).eval()
    run = torch.compile(ends(model), fullgraph=True, backend="aot_eager")
    assert run(torch.rand(4, 5))[0].shape == (4, 3)
    with pytest.raises((RuntimeError, ValueError)):
        run(torch.full((4, 5), float("nan")))


def test_an_explicit_backend_is_not_replaced() -> None:
    from fastbound.errors import BackendError

    model = nn.Linear(5, 3)
    with fb.use_backend("native"), pytest.raises(Exception) as caught:
        torch.compile(ends(model), fullgraph=True)(torch.rand(4, 5))
    error: BaseException | None = caught.value
    texts = []
    while error is not None:
        texts.append(f"{type(error).__name__} {error}")
        error = error.__cause__
    assert any(BackendError.__name__ in text or "torch.compile" in text for text in texts), texts
