"""`bound`, `margin_spec` and the losses: their contract apart from numbers, and bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastbound as fb
from fastbound.domains.interval.lazy import lazy_interval
from fastbound.spec import converted, margin_labels

MODEL = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
X, Y = torch.rand(3, 6), torch.tensor([0, 3, 1])
SPEC = fb.margin_spec(Y, 4)


def box(**settings: Any) -> fb.Interval:
    return fb.linf_box(X, 0.1, **settings)


def test_margin_spec() -> None:
    assert SPEC.shape == (3, 3, 4) and SPEC.dtype == torch.float32
    for i, y in enumerate(Y.tolist()):
        others = [j for j in range(4) if j != y]
        for row, j in enumerate(others):
            wanted = torch.zeros(4)
            wanted[y], wanted[j] = 1, -1
            assert torch.equal(SPEC[i, row], wanted)


def test_margins_are_those_of_their_dense_specification() -> None:
    """The fast path by labels, and the slow one of a tensor that has lost them."""
    forgotten = SPEC.clone()
    fast, slow = (fb.bound(MODEL, box(), method="ibp", spec=s) for s in (SPEC, forgotten))
    for end in ("lower", "upper", "nominal", "center", "radius"):
        assert torch.allclose(getattr(fast, end), getattr(slow, end), atol=1e-6)


def test_a_changed_margin_spec_is_an_ordinary_one() -> None:
    spec = fb.margin_spec(Y, 4)
    spec[0] = 0
    spec[0, 0, 2] = 1
    bounds = fb.bound(MODEL, box(), method="ibp", spec=spec)
    out = MODEL(box())
    assert torch.allclose(bounds.lower[0, 0], out.lower[0, 2], atol=1e-6) and not bounds.upper[0, 1:].any()


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_converted_margin_spec_knows_its_labels(mode: Callable[[], Any]) -> None:
    spec = fb.margin_spec(Y, 4)
    with mode():
        double = converted(spec, torch.float64, spec.device)
        found = margin_labels(double)
        lower = fb.bound(nn.Linear(6, 4).double(), fb.linf_box(X.double(), 0.1), spec=spec).lower
    assert double.dtype == torch.float64 and lower.dtype == torch.float64
    if mode is torch.inference_mode:  # which counts no versions, so nobody could tell whether the labels still hold
        assert found is None
    else:
        assert found is not None and torch.equal(found, Y)
    assert converted(spec, spec.dtype, spec.device) is spec


def test_labels_that_change_later_do_not_matter() -> None:
    labels = Y.clone()
    spec = fb.margin_spec(labels, 4)
    labels.zero_()
    assert torch.equal(fb.bound(MODEL, box(), spec=spec).lower, fb.bound(MODEL, box(), spec=SPEC).lower)


def test_elision_is_tighter_than_the_bounds_of_the_logits() -> None:
    out = MODEL(box())
    merged = fb.bound(out, method="ibp", spec=SPEC).lower
    apart = (SPEC.clamp(min=0) @ out.lower.unsqueeze(2) + SPEC.clamp(max=0) @ out.upper.unsqueeze(2)).squeeze(2)
    assert (merged >= apart - 1e-6).all() and (merged > apart + 1e-4).any()


@pytest.mark.parametrize("end", ["lower", "upper"])
def test_model_and_output_give_the_same(end: str) -> None:
    assert torch.equal(
        getattr(fb.bound(MODEL, box(), method="ibp", spec=SPEC), end),
        getattr(fb.bound(MODEL(box()), method="ibp", spec=SPEC), end),
    )
    assert torch.equal(getattr(fb.bound(MODEL, box(), method="ibp"), end), getattr(MODEL(box()), end))


def test_ends_are_computed_once_under_the_grad_mode_of_the_call() -> None:
    bounds = fb.bound(MODEL, box(), method="ibp", spec=SPEC)
    with torch.no_grad():
        lower = bounds.lower
        nominal = bounds.nominal
    assert lower.requires_grad and nominal.requires_grad and bounds.lower is lower
    with torch.no_grad():
        bounds = fb.bound(MODEL, box(), method="ibp", spec=SPEC)
    assert not bounds.upper.requires_grad


def test_reading_one_end_does_not_compute_the_other() -> None:
    def unread() -> Tensor:
        raise AssertionError("nobody has read it")

    bounds = lazy_interval(torch.Size((2, 3)), lambda: torch.ones(2, 3), unread, unread)
    assert bounds.shape == (2, 3) and torch.equal(bounds.lower, torch.ones(2, 3)) and bounds.dtype == torch.float32


def test_in_place_functions_rebind_bounds() -> None:
    bounds = fb.bound(MODEL, box(), method="crown", spec=SPEC)
    alias, wanted = bounds, bounds.lower + 1
    bounds += 1
    assert alias is bounds and torch.allclose(bounds.lower, wanted)


def test_no_nominal() -> None:
    bounds = fb.bound(MODEL, box(nominal=False), method="ibp", spec=SPEC)
    assert bounds.nominal is None and bounds.lower.shape == (3, 3)


def test_specification_of_another_dtype_follows_the_model() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    wide = fb.linf_box(X.double(), 0.1)
    bounds = fb.bound(model, wide, method="ibp", spec=SPEC)
    dense = fb.bound(model, fb.linf_box(X.double(), 0.1), method="ibp", spec=SPEC.double().clone())
    assert bounds.lower.dtype == torch.float64 and torch.allclose(bounds.lower, dense.lower, rtol=1e-12)


def test_a_function_is_a_model() -> None:
    bounds = fb.bound(lambda v: MODEL(v) * -2.0, box(), method="ibp", spec=SPEC)
    assert torch.allclose(bounds.nominal, -2 * (SPEC @ MODEL(X).unsqueeze(2)).squeeze(2), atol=1e-5)


def test_gradients_of_margins() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).double()

    def margins(weight: Tensor, bias: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        def run(v: Any) -> Any:
            return torch.nn.functional.linear(model[:2](v), weight, bias)

        bounds = fb.bound(run, fb.linf_box(x, 0.1), method="ibp", spec=SPEC)
        return bounds.lower, bounds.upper

    last = model[2]
    x = X.double().requires_grad_()
    assert torch.autograd.gradcheck(
        margins, (last.weight.detach().requires_grad_(), last.bias.detach().requires_grad_(), x)
    )


def test_robust_cross_entropy_bounds_the_loss_of_every_point() -> None:
    bounds = fb.bound(MODEL, box(), method="ibp", spec=SPEC)
    loss = fb.losses.robust_cross_entropy(bounds)
    for _ in range(100):
        point = X + 0.1 * (2 * torch.rand_like(X) - 1)
        assert nn.functional.cross_entropy(MODEL(point), Y) <= loss + 1e-6
    assert torch.allclose(loss, torch.log1p(torch.exp(-bounds.lower).sum(1)).mean())


def test_robust_cross_entropy_does_not_overflow() -> None:
    margins = fb.box(torch.full((2, 3), -1e4), torch.full((2, 3), 1e4))
    assert torch.allclose(fb.losses.robust_cross_entropy(margins), torch.tensor(1e4), rtol=1e-3)


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "method": (lambda: fb.bound(MODEL, box(), method="IBP"), ValueError, "method: wanted one of ibp.*'IBP'"),
    "option": (
        lambda: fb.bound(MODEL, box(), method="ibp", relaxation="zero"),
        TypeError,
        "'ibp' takes no options.*relaxation",
    ),
    "tensor for a box": (lambda: fb.bound(MODEL, X), TypeError, "linf_box"),
    "no box": (lambda: fb.bound(MODEL), TypeError, r"wanted \(model, box\) or \(out\)"),
    "output and box": (lambda: fb.bound(MODEL(box()), box()), TypeError, "either"),
    "no model": (lambda: fb.bound(3, box()), TypeError, "int"),
    "several outputs": (lambda: fb.bound(lambda v: (v, v), box()), TypeError, "returned tuple"),
    "spec of another batch": (lambda: fb.bound(MODEL, box(), spec=SPEC[:2]), ValueError, r"\[3, S, 4\].*\(2, 3, 4\)"),
    "spec of other classes": (
        lambda: fb.bound(MODEL, box(), spec=torch.zeros(3, 2, 5)),
        ValueError,
        r"\[3, S, 4\].*\(3, 2, 5\)",
    ),
    "spec for all samples": (
        lambda: fb.bound(MODEL, box(), spec=torch.zeros(2, 4)),
        ValueError,
        r"spec\.expand\(3, -1, -1\)",
    ),
    "spec no tensor": (lambda: fb.bound(MODEL, box(), spec=[[1.0]]), TypeError, "spec: wanted a tensor"),
    "spec of maps": (
        lambda: fb.bound(lambda v: v.unsqueeze(2), box(), spec=SPEC),
        ValueError,
        r"\[B, K\].*\(3, 6, 1\).*flatten",
    ),
    "labels too large": (lambda: fb.margin_spec(torch.tensor([0, 4]), 4), ValueError, r"labels: .*\[0, 4\)"),
    "labels negative": (lambda: fb.margin_spec(torch.tensor([0, -1]), 4), ValueError, r"labels: .*\[0, 4\)"),
    "labels of floats": (lambda: fb.margin_spec(torch.tensor([0.0]), 4), TypeError, "labels: .*float32"),
    "labels of booleans": (lambda: fb.margin_spec(torch.tensor([True]), 4), TypeError, "labels: .*bool"),
    "labels in a list": (lambda: fb.margin_spec([0, 1], 4), TypeError, "labels: .*list"),
    "labels one-hot": (lambda: fb.margin_spec(torch.eye(4).long(), 4), ValueError, r"labels \[B\].*\(4, 4\)"),
    "one class": (lambda: fb.margin_spec(torch.tensor([0]), 1), ValueError, "num_classes >= 2"),
    "loss of a tensor": (lambda: fb.losses.robust_cross_entropy(torch.zeros(2, 3)), TypeError, "Interval.*Tensor"),
    "loss of maps": (
        lambda: fb.losses.robust_cross_entropy(fb.linf_box(torch.zeros(2, 3, 4), 0.1)),
        ValueError,
        "K - 1",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_can_go_wrong_says_so(name: str) -> None:
    call, kind, message = WRONG[name]
    with pytest.raises(kind, match=message):
        call()


def test_bounds_in_inference_mode_are_those_without_gradients() -> None:
    model, x, labels = torch.nn.Linear(5, 4), torch.randn(3, 5), torch.tensor([0, 1, 3])
    for method in ("ibp", "crown-ibp", "crown"):
        with torch.no_grad():
            wanted = fb.bound(model, fb.linf_box(x, 0.1), method=method, spec=fb.margin_spec(labels, 4)).lower
        with torch.inference_mode():
            found = fb.bound(model, fb.linf_box(x, 0.1), method=method, spec=fb.margin_spec(labels, 4)).lower
        torch.testing.assert_close(found, wanted)


def test_a_specification_that_wants_a_gradient_gets_one() -> None:
    spec = fb.margin_spec(torch.tensor([0, 1]), 4).requires_grad_()
    fb.bound(torch.nn.Linear(5, 4), fb.linf_box(torch.randn(2, 5), 0.1), spec=spec).lower.sum().backward()
    assert spec.grad is not None and spec.grad.abs().sum() > 0


def test_an_expanded_map_gives_its_gradient() -> None:
    net = torch.nn.Conv2d(2, 3, 3)
    out = net(fb.linf_box(torch.rand(2, 2, 6, 6), 0.1))
    wide = out.mean((2, 3), keepdim=True).expand_as(out)
    wide.lower.sum().backward()
    assert net.weight.grad is not None and torch.isfinite(net.weight.grad).all()


def test_tensors_of_two_dtypes_never_reach_compiled_code() -> None:
    from fastbound.ops import interval_margin

    with pytest.raises(TypeError, match=r"interval_margin.*one dtype.*float32.*float64"):
        interval_margin(torch.rand(2, 3), torch.rand(4, 3).double(), torch.tensor([0, 1]))
