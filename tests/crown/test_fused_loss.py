"""Loss fusion: IBP at beta 0, an upper bound on every true loss of the box at any beta, right gradients, one row."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastbound as fb
from fastbound import crown
from fastbound.losses import fused_cross_entropy, robust_cross_entropy


def network(classes: int = 5, double: bool = False) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(2)
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 16), nn.ReLU()),
        nn.Linear(16, classes),
    ).eval()
    x, labels = torch.rand(6, 1, 8, 8), torch.arange(6) % classes
    return (model.double(), x.double(), labels) if double else (model, x, labels)


def attacked(model: nn.Module, box: fb.Interval, labels: Tensor) -> Tensor:
    """The largest loss of each sample [B] over random points, corners and attacks."""
    low, high = box.lower, box.upper
    worst = torch.full(labels.shape, -torch.inf, dtype=low.dtype)
    for i in range(200):
        unit = torch.rand_like(low)
        x = low + (high - low) * (unit.round() if i % 2 else unit)
        for step in range(10 if i % 20 == 0 else 0):
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels), x)
            x = torch.minimum(torch.maximum(x + gradient.sign() * (high - low) / (step + 2), low), high).detach()
        worst = torch.maximum(worst, F.cross_entropy(model(x), labels, reduction="none").detach())
    return worst


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.1, 0.5])
def test_beta_0_is_the_robust_cross_entropy_of_ibp(eps: float) -> None:
    model, x, labels = network()
    out = model(fb.linf_box(x, eps))
    expected = robust_cross_entropy(fb.bound(out, spec=fb.margin_spec(labels, 5)))
    assert abs(fused_cross_entropy(out, labels, 0.0) - expected) < 1e-3


@pytest.mark.parametrize("eps", [0.01, 0.05, 0.2, 0.8])
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_never_below_the_loss_of_any_point(eps: float, beta: float) -> None:
    model, x, labels = network()
    box = fb.linf_box(x, eps)
    worst = attacked(model, box, labels)
    for i in range(len(labels)):
        one = model(fb.linf_box(x[i : i + 1], eps))
        assert fused_cross_entropy(one, labels[i : i + 1], beta) >= worst[i] - 1e-4


@pytest.mark.parametrize("eps", [0.01, 0.05, 0.2])
def test_at_most_ibp_where_crown_is_tighter_in_every_row(eps: float) -> None:
    model, x, labels = network()
    checked = 0
    for i in range(len(labels)):
        out, label = model(fb.linf_box(x[i : i + 1], eps)), labels[i : i + 1]
        spec = fb.margin_spec(label, 5)
        ibp, tight = fb.bound(out, spec=spec), fb.bound(out, method="crown-ibp", spec=spec)
        fused = fused_cross_entropy(out, label, 1.0)
        if (tight.lower >= ibp.lower).all():
            checked += 1
            assert fused <= robust_cross_entropy(ibp) + 1e-4
    assert checked


def test_a_point_has_the_plain_cross_entropy() -> None:
    model, x, labels = network(double=True)
    for beta in (0.0, 0.5, 1.0):
        loss = fused_cross_entropy(model(fb.linf_box(x, 0.0)), labels, beta)
        torch.testing.assert_close(loss, F.cross_entropy(model(x), labels))


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_gradients(beta: float) -> None:
    model, x, labels = network(double=True)
    weights = dict(model.named_parameters())

    def loss(*values: Tensor) -> Tensor:
        out = torch.func.functional_call(model, dict(zip(weights, values)), (fb.linf_box(x, 0.05),))
        return fused_cross_entropy(out, labels, beta)

    assert torch.autograd.gradcheck(loss, tuple(weights.values()), fast_mode=True, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_finite_for_logits_of_any_size(scale: float) -> None:
    model, x, labels = network()
    with torch.no_grad():
        model[6].weight.mul_(scale)
    for beta in (0.0, 0.5, 1.0):
        loss = fused_cross_entropy(model(fb.linf_box(x, 0.3)), labels, beta)
        assert loss.isfinite() and all(g.isfinite().all() for g in torch.autograd.grad(loss, model.parameters()))


def test_one_row_a_sample_and_none_at_beta_0(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, labels = network(classes=5)
    rows = []
    original = crown.walk.Walk.run
    monkeypatch.setattr(crown.walk.Walk, "run", lambda self, a: rows.append(tuple(a.shape)) or original(self, a))
    out = model(fb.linf_box(x, 0.1))
    fused_cross_entropy(out, labels, 0.0)
    assert rows == []
    fused_cross_entropy(out, labels, 0.5)
    assert rows == [(6, 1, 5)]


def test_bad_input_is_named() -> None:
    model, x, labels = network()
    out = model(fb.linf_box(x, 0.1))
    with pytest.raises(TypeError, match="out: wanted the Interval"):
        fused_cross_entropy(model(x), labels, 0.5)
    with pytest.raises(ValueError, match=r"beta: wanted a number in \[0, 1\]"):
        fused_cross_entropy(out, labels, 1.5)
    with pytest.raises(ValueError, match="labels: wanted classes"):
        fused_cross_entropy(out, labels + 3, 0.5)
    with pytest.raises(ValueError, match="out: wanted logits"):
        fused_cross_entropy(fb.linf_box(x, 0.1), labels, 0.5)
