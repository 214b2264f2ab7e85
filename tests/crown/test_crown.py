"""CROWN and CROWN-IBP as bounds: sampled, corner and attacked points stay inside, on networks of every shape."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from crown_networks import METHODS, assert_contains, build, cnn7, every_network, points
from torch import Tensor, nn

import fastbound as fb
from fastbound import crown
from fastbound.errors import MissingRuleError, TapeError
from fastbound.ops import interval_norm_relu_with_box

RELAXATIONS = ("adaptive", "same-slope", "zero", "one")


# ---- soundness -----------------------------------------------------------------------------------------------------


@every_network
@pytest.mark.parametrize("eps", [0.02, 0.15, 0.6])
def test_points_of_the_box_never_leave_the_bounds(name: str, eps: float) -> None:
    model, x = build(name)
    box = fb.linf_box(x, eps, 0, 1)
    out = model(box)
    classes = out.shape[1]
    spec = torch.cat((fb.margin_spec(torch.arange(3) % classes, classes), torch.randn(3, 2, classes)), 1)
    inside = points(model, box, spec, 350)
    with torch.no_grad():
        values = model(torch.stack(inside).flatten(0, 1)).unflatten(0, (len(inside), 3))
    values = (spec @ values.unsqueeze(-1)).squeeze(-1)
    assert values.shape[0] * values.shape[1] >= 1000
    ibp = fb.bound(out, spec=spec)
    for method in METHODS:
        for relaxation in RELAXATIONS:
            assert_contains(fb.bound(out, method=method, spec=spec, relaxation=relaxation), values)
    full = fb.bound(out, method="crown", spec=spec)
    assert (full.lower >= ibp.lower - 1e-5).all() and (full.upper <= ibp.upper + 1e-5).all(), "crown lies inside ibp"


def test_training_mode_batchnorm_with_frozen_statistics() -> None:
    model, x = build("cnn-7", batch=4)
    model.train()
    for p in model.parameters():
        p.requires_grad_(False)
    box = fb.linf_box(x, 0.05, 0, 1)
    out = model(box)
    frozen = cnn7()
    frozen.load_state_dict(model.state_dict())
    frozen.eval()
    value = x
    for theirs, ours in zip(model, frozen):  # the statistics of the clean batch, layer by layer
        if isinstance(ours, (nn.BatchNorm1d, nn.BatchNorm2d)):
            dims = [d for d in range(value.dim()) if d != 1]
            ours.running_var, ours.running_mean = torch.var_mean(value, dims, correction=0)
        value = theirs(value)
    spec = fb.margin_spec(torch.arange(4), 5)
    inside = points(frozen, box, spec, 250)
    values = frozen(torch.stack(inside).flatten(0, 1)).unflatten(0, (len(inside), 4))
    values = (spec @ values.unsqueeze(-1)).squeeze(-1).detach()
    for method in METHODS:
        assert_contains(fb.bound(out, method=method, spec=spec), values)


@every_network
def test_the_linear_function_bounds_the_network_at_every_point(name: str) -> None:
    model, x = build(name)
    box = fb.linf_box(x, 0.1, 0, 1)
    out = model(box)
    classes = out.shape[1]
    spec = fb.margin_spec(torch.arange(3) % classes, classes)
    for method in METHODS:
        lower = crown.linear_function(out, spec, method)
        upper = crown.linear_function(out, spec, method, upper=True)
        assert lower.coefficients.shape == (3, classes - 1, *x.shape[1:])
        for point in points(model, box, spec, 30):
            value = (spec @ model(point).unsqueeze(-1)).squeeze(-1)
            assert (lower(point) <= value + 1e-4).all() and (value <= upper(point) + 1e-4).all()
        b = fb.bound(out, method="crown-ibp", spec=spec)
        if method == "crown-ibp":
            least = lower(box.center) - (lower.coefficients.abs() * box.radius.unsqueeze(1)).flatten(2).sum(2)
            torch.testing.assert_close(least, b.lower, atol=1e-4, rtol=1e-4)


def test_a_linear_function_belongs_to_one_box() -> None:
    first, second = nn.Linear(4, 3), nn.Linear(2, 3)
    out = first(fb.linf_box(torch.rand(2, 4), 0.1)) + second(fb.linf_box(torch.rand(2, 2), 0.1))
    with pytest.raises(ValueError, match="depends on 2 boxes"):
        crown.linear_function(out)
    torch.testing.assert_close(fb.bound(out, method="crown-ibp").lower, out.lower)


@pytest.mark.parametrize("method", METHODS)
def test_constants_and_layers_of_several_dtypes(method: str) -> None:
    """The compiled passes read rows and bounds in one dtype, which changes on the way to the box."""
    mean, gain = torch.rand(6, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    first, second, third = nn.Linear(6, 5), nn.Linear(5, 5).double(), nn.Linear(5, 3)

    def model(x: Any) -> Any:
        hidden = torch.relu(first((x - mean).float())) * gain  # float64 after the product
        return third(torch.relu(second(hidden)).float())

    x = torch.rand(2, 6)
    out = model(fb.linf_box(x, 0.1))
    b = fb.bound(out, method=method)
    assert b.lower.dtype == b.upper.dtype == torch.float32
    for _ in range(300):
        value = model(x + 0.1 * (2 * torch.rand_like(x) - 1).sign())
        assert (b.lower <= value + 1e-5).all() and (value <= b.upper + 1e-5).all()
    assert (b.upper - b.lower <= 3 * (out.upper - out.lower)).all()


class MixedSum(nn.Module):
    """Adds a float64 map to a float32 one; in float64 as a whole after ``double()``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(75, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(torch.relu(self.second(x)) + x.double() - 0.5)
        return self.head(x.to(self.head.weight.dtype).flatten(1))


def test_sparse_rows_meet_a_sum_of_several_dtypes() -> None:
    model, x = MixedSum(), torch.rand(2, 2, 5, 5)
    found = fb.bound(model, fb.linf_box(x, 0.05), method="crown")
    wanted = fb.bound(copy.deepcopy(model).double(), fb.linf_box(x.double(), 0.05), method="crown")
    torch.testing.assert_close(found.lower.double(), wanted.lower, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.upper.double(), wanted.upper, atol=1e-4, rtol=1e-4)


def test_a_linear_function_of_a_network_in_float64() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU()).double()
    x = torch.rand(2, 4, dtype=torch.float64)
    found = crown.linear_function(model(fb.linf_box(x, 0.1)), fb.margin_spec(torch.tensor([0, 4]), 5))
    value = (fb.margin_spec(torch.tensor([0, 4]), 5).double() @ model(x).unsqueeze(-1)).squeeze(-1)
    assert found.coefficients.dtype == found.bias.dtype == torch.float64 and (found(x) <= value + 1e-12).all()


# ---- exactness -----------------------------------------------------------------------------------------------------


def test_affine_networks_are_bounded_exactly() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, 2, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(36, 5)
    )
    model = model.eval().double()
    model[1].running_mean.normal_()
    x = torch.rand(2, 2, 7, 8, dtype=torch.float64)
    box = fb.linf_box(x, 0.1)
    rows = torch.autograd.functional.jacobian(lambda v: model(v).sum(0), x).movedim(1, 0)  # [B, S, C, H, W]
    width = rows.abs().flatten(2).sum(2) * 0.1
    for method in METHODS:
        b = fb.bound(model, box, method=method)
        torch.testing.assert_close(b.lower, model(x) - width)
        torch.testing.assert_close(b.upper, model(x) + width)
        torch.testing.assert_close(crown.linear_function(model(box), method=method).coefficients, rows)


def dense_crown(weights: list[Tensor], biases: list[Tensor], c: Tensor, r: Tensor, spec: Tensor, full: bool) -> Tensor:
    """Lower bounds of ``spec @ mlp`` for one sample, written with dense matrices and lines one neuron at a time."""

    def lower(rows: Tensor, depth: int, bounds: list[tuple[Tensor, Tensor]]) -> Tensor:
        bias = rows @ biases[depth]
        rows = rows @ weights[depth]
        for layer in range(depth - 1, -1, -1):
            l, u = bounds[layer]  # noqa: E741
            new = torch.zeros_like(rows)
            for j in range(rows.shape[1]):
                for i in range(rows.shape[0]):
                    a = rows[i, j]
                    if l[j] >= 0:
                        new[i, j] = a
                    elif u[j] > 0 and a < 0:
                        slope = u[j] / (u[j] - l[j])
                        new[i, j] = a * slope
                        bias[i] += a * slope * -l[j]
                    elif u[j] > 0:
                        new[i, j] = a * float(u[j] > -l[j])
            bias = bias + new @ biases[layer]
            rows = new @ weights[layer]
        return rows @ c - rows.abs() @ r + bias

    bounds: list[tuple[Tensor, Tensor]] = []
    low, high = c - r, c + r
    for layer in range(len(weights) - 1):
        positive, negative = weights[layer].clamp(min=0), weights[layer].clamp(max=0)
        l = positive @ low + negative @ high + biases[layer]  # noqa: E741
        u = positive @ high + negative @ low + biases[layer]
        if full:
            eye = torch.eye(len(l), dtype=l.dtype)
            tight_l, tight_u = lower(eye, layer, bounds), -lower(-eye, layer, bounds)
            unstable = (l < 0) & (u > 0)
            l = torch.where(unstable, torch.maximum(l, tight_l), l)  # noqa: E741
            u = torch.where(unstable, torch.minimum(u, tight_u), u)
            low, high = (
                (positive @ low + negative @ high + biases[layer]),
                (positive @ high + negative @ low + biases[layer]),
            )
            low, high = low.relu(), high.relu()
        else:
            low, high = l.relu(), u.relu()
        bounds.append((l, u))
    return lower(spec, len(weights) - 1, bounds)


@pytest.mark.parametrize("method", METHODS)
def test_an_mlp_agrees_with_dense_matrices_in_float64(method: str) -> None:
    model, x = build("mlp", double=True)
    layers = [m for m in model if isinstance(m, nn.Linear)]
    weights, biases = [m.weight.detach() for m in layers], [m.bias.detach() for m in layers]
    box = fb.linf_box(x, 0.2)
    spec = fb.margin_spec(torch.tensor([0, 1, 2]), 4).double()
    b = fb.bound(model, box, method=method, spec=spec)
    ibp = fb.bound(model, box, spec=spec)
    for i in range(3):
        expected = dense_crown(weights, biases, box.center[i], box.radius[i], spec[i], method == "crown")
        if method == "crown":
            expected = torch.maximum(expected, ibp.lower[i])
        torch.testing.assert_close(b.lower[i], expected)
        above = dense_crown(weights, biases, box.center[i], box.radius[i], -spec[i], method == "crown")
        above = -above if method == "crown-ibp" else torch.minimum(-above, ibp.upper[i])
        torch.testing.assert_close(b.upper[i], above)


@every_network
@pytest.mark.parametrize("method", METHODS)
def test_a_degenerate_box_gives_the_plain_forward(name: str, method: str) -> None:
    model, x = build(name, double=True)
    b = fb.bound(model, fb.linf_box(x, 0.0), method=method)
    torch.testing.assert_close(b.lower, model(x))
    torch.testing.assert_close(b.upper, model(x))


def test_wider_boxes_have_wider_bounds_and_crown_is_tighter_where_it_should_be() -> None:
    model, x = build("dm-small")
    spec = fb.margin_spec(torch.tensor([0, 1, 2]), 5)
    widths = {m: [] for m in ("ibp", *METHODS)}
    for eps in (0.01, 0.05, 0.2):
        for method in widths:
            widths[method].append(fb.bound(model, fb.linf_box(x, eps), method=method, spec=spec).radius.mean().item())
    for method, found in widths.items():
        assert found == sorted(found), method
    assert all(a < b < c for a, b, c in zip(widths["crown"], widths["crown-ibp"], widths["ibp"]))


# ---- gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "dm-small", "cnn-7", "residual", "max-pooling", "clamps", "sequence"])
@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_parameters(name: str, method: str) -> None:
    """Directional derivatives against central differences: through slopes, pre-activation bounds and BatchNorm."""
    model, x = build(name, double=True)
    if name == "cnn-7":
        model.train()
    parameters = [p for p in model.parameters()]
    generator = torch.Generator().manual_seed(3)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    def loss() -> Tensor:
        out = model(fb.linf_box(x, 0.05))
        spec = fb.margin_spec(torch.arange(3) % out.shape[1], out.shape[1])
        return fb.losses.robust_cross_entropy(fb.bound(out, method=method, spec=spec))

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    slope = sum((g * d).sum().item() for g, d in zip(gradients, direction) if g is not None)
    step = 1e-7
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for p, d in zip(parameters, direction):
                p.add_(d, alpha=sign * step)
            values.append(loss().item())
    assert math.isclose((values[0] - values[1]) / (2 * step), slope, rel_tol=1e-4, abs_tol=1e-6)


def test_gradients_stay_finite_at_degenerate_neurons() -> None:
    model, x = build("mlp")
    with torch.no_grad():
        model[0].weight[:3] = 0
        model[0].bias[0], model[0].bias[1], model[0].bias[2] = 0.0, 1.0, -1.0
    for eps in (0.0, 1e-30, 0.1):
        for relaxation in RELAXATIONS:
            out = model(fb.linf_box(x, eps))
            spec = fb.margin_spec(torch.tensor([0, 1, 2]), 4)
            loss = fb.losses.robust_cross_entropy(fb.bound(out, method="crown", spec=spec, relaxation=relaxation))
            assert all(g.isfinite().all() for g in torch.autograd.grad(loss, model.parameters()))


# ---- bad input -----------------------------------------------------------------------------------------------------


def test_bad_input_is_named() -> None:
    model, x = build("mlp")
    box = fb.linf_box(x, 0.1)
    out = model(box)
    with pytest.raises(ValueError, match=r"spec: wanted shape \[3, S, 4\]"):
        fb.bound(out, method="crown", spec=torch.zeros(3, 2, 5))
    with pytest.raises(ValueError, match="relaxation: wanted one of adaptive"):
        fb.bound(out, method="crown", relaxation="best")
    with pytest.raises(ValueError, match="fallback: wanted None or 'ibp'"):
        fb.bound(out, method="crown", fallback="interval")
    with pytest.raises(ValueError, match="memory_budget: wanted a positive number"):
        fb.bound(out, method="crown", memory_budget=0)
    with pytest.raises(TypeError, match="got an output and a box"):
        fb.bound(out, fb.linf_box(x, 0.2), method="crown")
    with torch.no_grad():
        silent = model(box)
    with pytest.raises(TapeError, match="computed under no_grad"):
        fb.bound(silent, method="crown-ibp")
    with torch.no_grad():
        assert fb.bound(silent, method="crown-ibp").lower.isfinite().all()


def test_freed_and_outdated_tapes_are_refused() -> None:
    model, x = build("mlp")
    out = model(fb.linf_box(x, 0.1))
    fb.bound(out, method="crown-ibp").lower.sum().backward()
    with pytest.raises(TapeError, match="freed by backward"):
        fb.bound(out, method="crown-ibp")
    out = model(fb.linf_box(x, 0.1))
    b = fb.bound(out, method="crown-ibp")
    with torch.no_grad():
        model[2].weight.add_(1)
    with pytest.raises(TapeError, match="changed in place"):
        b.lower  # noqa: B018
    b = fb.bound(model, fb.linf_box(x, 0.1), method="crown-ibp")
    with pytest.raises(TapeError, match="has no tape"):
        fb.bound(b, method="crown")


@pytest.mark.parametrize(
    "mix", [lambda x: x.flip(0), lambda x: x - x.mean(0, keepdim=True), lambda x: x.transpose(0, 1)]
)
def test_functions_that_mix_samples_are_refused(mix: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    out = mix(nn.Linear(3, 3)(fb.linf_box(torch.rand(3, 3), 0.1)))
    with pytest.raises(MissingRuleError, match="samples"):
        fb.bound(out, method="crown-ibp").lower  # noqa: B018


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("slope", [0.0, 1.0])
@pytest.mark.parametrize("reads", ["both", "box", "output"])
def test_the_box_that_a_relu_hands_on_has_the_gradient_of_another_reader(
    backend: str, slope: float, reads: str
) -> None:
    stack, radius = torch.randn(2, 3, 4, dtype=torch.float64), torch.rand(3, 4, dtype=torch.float64)
    weights = torch.randn(4, 3, 4, dtype=torch.float64)
    found = []
    for handed in (True, False):
        inputs = stack.clone().requires_grad_(), radius.clone().requires_grad_()
        with fb.use_backend(backend):
            *out, center, width = interval_norm_relu_with_box(*inputs, negative_slope=slope)
        box = (center, width) if handed else (inputs[0][-1], inputs[1])
        loss = inputs[1].sum()
        if reads != "output":
            loss = loss + (box[0] * weights[0]).sum() + (box[1] * weights[1]).sum()
        if reads != "box":
            loss = loss + (out[0] * weights[2]).sum() + (out[1] * weights[3]).sum()
        found.append(torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True))
    assert all(torch.allclose(ours, theirs) for ours, theirs in zip(*found))
