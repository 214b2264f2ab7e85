"""The relaxations of the study by name: sound, continuous or not as the paper says, and inside the linear program."""

from __future__ import annotations

import crown_networks
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastbound as fb
from fastbound.certify import Attack, lp
from fastbound.certify.lp import triangle_bounds, triangle_margins
from fastbound.crown.relaxations import lines
from fastbound.crown.relu_family import FAMILY
from fastbound.domains import functions
from fastbound.errors import MissingRuleError
from fastbound.methods import GENERAL, METHODS, STUDIED

CROWN = [name for name, method in STUDIED.items() if method.kind != "zonotope"]
RELU_NETWORKS = [name for name in crown_networks.NETWORKS if name not in ("max-pooling", "clamps", "sigmoid and tanh")]
CONTINUOUS = ("ibp", "box", "deepz", "diag-c", "soft", "deepz-ibp-r", "crown-soft", "crown-ibp-r-soft")
every_family = pytest.mark.parametrize("relaxation", FAMILY)


# ---- lines ---------------------------------------------------------------------------------------------------------


@every_family
@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0, 2.5])
def test_lines_hold_on_every_interval(relaxation: str, slope: float) -> None:
    ends = torch.tensor([-3.0, -1.0, -1e-3, 0.0, 1e-7, 0.7, 2.5], dtype=torch.float64)
    low, high = (x.flatten() for x in torch.meshgrid(ends, ends, indexing="ij"))
    low, high = low[low <= high], high[low <= high]
    found = lines(functions.leaky_relu(slope), (low + high) / 2, (high - low) / 2, relaxation)
    for share in torch.linspace(0, 1, 41, dtype=torch.float64):
        x = low + share * (high - low)
        below = 0.0 if found.lower_offset is None else found.lower_offset
        value = F.leaky_relu(x, slope)
        assert (found.lower_slope * x + below <= value + 1e-12).all()
        assert (found.upper_slope * x + found.upper_offset >= value - 1e-12).all()


def test_lines_are_those_of_the_paper() -> None:
    """Slope and offset below, slope and offset above, for neurons on [-1, 3], on [1, 3] and on [-3, -1]."""
    wanted = {
        "zero-c": ((0, 0, 0.75, 0.75), (0, 1, 1, 0), (0, 0, 0, 0)),
        "one-c": ((1, 0, 0.75, 0.75), (1, 0, 1, 0), (1, 0, 0, 0)),
        "zero-tria": ((0, 0, 1, 1), (1, 0, 1, 0), (0, 0, 0, 0)),
        "zero-tria-c": ((0, 0, 1, 1), (0, 1, 1, 0), (0, 0, 1, 3)),
        "one-tria": ((1, 0, 0, 3), (1, 0, 1, 0), (0, 0, 0, 0)),
        "one-tria-c": ((1, 0, 0, 3), (1, 0, 0, 3), (1, 0, 0, 0)),
    }
    center, radius = torch.tensor([1.0, 2.0, -2.0]), torch.tensor([2.0, 1.0, 1.0])
    for relaxation, rows in wanted.items():
        found = torch.stack(FAMILY[relaxation](center, radius), 1)
        assert torch.equal(found, torch.tensor(rows, dtype=torch.float32)), relaxation
    soft = FAMILY["soft"](center, radius)[0]
    torch.testing.assert_close(soft, torch.tensor([float(torch.tensor(3 - 1 / 3).sigmoid()), 1, 0]), rtol=1e-5, atol=0)


# ---- soundness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RELU_NETWORKS)
def test_points_of_the_box_stay_inside(name: str) -> None:
    model, x = crown_networks.build(name)
    box = fb.linf_box(x, 0.1, 0, 1)
    out = model(box)
    classes = out.shape[1]
    spec = fb.margin_spec(torch.arange(3) % classes, classes)
    inside = crown_networks.points(model, box, spec, 100)
    with torch.no_grad():
        values = model(torch.stack(inside).flatten(0, 1)).unflatten(0, (len(inside), 3))
        values = (spec @ values.unsqueeze(-1)).squeeze(-1)
        for method in CROWN:
            crown_networks.assert_contains(fb.bound(out, method=method, spec=spec), values)


def test_names_stand_for_what_they_say() -> None:
    model, x = crown_networks.build("dm-small")
    box = fb.linf_box(x, 0.1, 0, 1)
    spec = fb.margin_spec(torch.arange(3), 5)
    pairs = {
        "crown-ibp-r": {"method": "crown-ibp"},
        "crown-0": {"method": "crown", "relaxation": "zero"},
        "crown-ibp-r-1-tria-c": {"method": "crown-ibp", "relaxation": "one-tria-c"},
        "crown-ibp-r-soft": {"method": "crown-ibp", "relaxation": "soft-10"},
    }
    for name, same in pairs.items():
        assert torch.equal(fb.bound(model, box, name, spec).lower, fb.bound(model, box, spec=spec, **same).lower)
    wanted = fb.bound(model(fb.zonotope(box, "diag")), spec=spec).lower
    assert torch.equal(fb.bound(model, box, "diag", spec).lower, wanted)
    assert len(METHODS) == len(GENERAL) + len(STUDIED) and all(name in METHODS for name in CONTINUOUS)


# ---- continuity ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def largest_changes(method: str, count: int = 400) -> tuple[float, float]:
    """The largest changes of a certified margin along a line in the space of weights, of ten steps and of one."""
    generator = torch.Generator().manual_seed(3)
    sizes = [(10, 6), (10,), (10, 10), (10,), (3, 10), (3,)]
    start, end = ([torch.randn(s, generator=generator, dtype=torch.float64) for s in sizes] for _ in range(2))
    x = torch.randn(1, 6, generator=generator, dtype=torch.float64)
    spec = fb.margin_spec(torch.tensor([0]), 3)
    found = []
    for share in torch.linspace(0, 1, count + 1, dtype=torch.float64):
        w = [a.lerp(b, share) for a, b in zip(start, end)]

        def model(value: fb.Interval, w: list[Tensor] = w) -> Tensor:
            return F.linear(torch.relu(F.linear(torch.relu(F.linear(value, *w[:2])), *w[2:4])), *w[4:])

        found.append(fb.bound(model, fb.linf_box(x, 0.15), method, spec).lower[0])
    values = torch.stack(found)
    return float(values[::10].diff(dim=0).abs().max()), float(values.diff(dim=0).abs().max())


@pytest.mark.parametrize("method", [name for name in METHODS if name.endswith("-c") or name in CONTINUOUS])
def test_a_continuous_relaxation_changes_little_where_the_weights_do(method: str) -> None:
    of_ten, of_one = largest_changes(method)
    assert of_ten > 5 * of_one


@pytest.mark.parametrize(
    "method",
    [
        *("hbox", "zbox", "diag", "switch", "crown", "crown-0", "crown-1", "crown-0-tria", "crown-1-tria"),
        *("crown-ibp-r", "crown-ibp-r-0", "crown-ibp-r-1", "crown-ibp-r-0-tria", "crown-ibp-r-1-tria"),
    ],
)
def test_the_others_jump(method: str) -> None:
    of_ten, of_one = largest_changes(method)
    assert of_ten < 2.5 * of_one


@pytest.mark.parametrize(
    "method, low, high",
    [
        *(("hbox", 0.0, 1.0), ("zbox", 0.0, 1.0), ("diag", -1.0, 0.0), ("switch", -1.0, 1.0)),
        *(("crown", -1.0, 1.0), ("crown-ibp-r", -1.0, 1.0)),
        *(("crown-ibp-r-0", 0.0, 1.0), ("crown-ibp-r-1", -1.0, 0.0)),
    ],
)
def test_jumps_are_where_the_paper_says(method: str, low: float, high: float) -> None:
    """Bounds of relu(x + y + b) and x jump where the ReLU's input passes [low, high], and nowhere near it."""

    def width(shift: float) -> Tensor:
        half = (high - low) / 2
        box = fb.linf_box(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0.9 * half, 0.1 * half]).double())

        def model(value: fb.Interval) -> Tensor:
            z = F.linear(value, torch.ones(1, 2).double(), torch.tensor([(low + high) / 2 + shift]).double())
            joined = torch.cat([torch.relu(z), value], 1)
            return F.linear(joined, torch.tensor([[1.0, -0.7, 0.2], [-1.0, 0.3, 0.1]]).double())

        found = fb.bound(model, box, method, torch.eye(2).double()[None])
        return torch.cat((found.lower, found.upper))

    jump, nearby = width(1e-6) - width(-1e-6), width(0.1 + 1e-6) - width(0.1 - 1e-6)
    assert jump.abs().max() > 1e-2 and nearby.abs().max() < 1e-4


# ---- gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["crown-ibp", "crown"])
@every_family
def test_gradients_of_margins(relaxation: str, kind: str) -> None:
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    sizes = [(2, 1, 3, 3), (2,), (5, 8), (5,), (4, 5), (4,)]
    parameters = [torch.randn(size, dtype=torch.float64) * 0.4 for size in sizes]
    inputs = [x, torch.full_like(x, 0.1), *parameters]

    def margins(x: Tensor, eps: Tensor, *weights: Tensor) -> Tensor:
        def model(value: fb.Interval) -> Tensor:
            value = torch.relu(F.conv2d(value, *weights[:2]))
            return F.linear(F.leaky_relu(F.linear(value.flatten(1), *weights[2:4]), 0.1), *weights[4:])

        spec = fb.margin_spec(torch.tensor([0, 2]), 4)
        return fb.bound(model, fb.box(x - eps, x + eps), kind, spec, relaxation=relaxation).lower

    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(margins, inputs, eps=1e-7, atol=1e-5)


# ---- linear programs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "cnn-7", "residual", "concat", "average pooling", "grouped, dilated, strided"])
def test_triangle_bounds_lie_inside_those_of_crown(name: str) -> None:
    """And above every attacked point; on affine pieces alone they are exact."""
    model, x = crown_networks.build(name, double=True)
    box = fb.linf_box(x[:1], 0.1, 0, 1)
    out = model(box)
    spec = fb.margin_spec(torch.tensor([0]), out.shape[1]).double()[:, :2]
    found = triangle_bounds(out, spec)
    for relaxation in ("adaptive", "zero", "one", "same-slope"):
        inner = fb.bound(out, method="crown", spec=spec, relaxation=relaxation).lower
        assert (found >= inner - 1e-9).all() or relaxation != "adaptive"
    assert (found >= fb.bound(out, method="crown", spec=spec).lower - 1e-9).all()
    assert (found > fb.bound(out, method="crown", spec=spec).lower + 1e-6).any()
    for point in crown_networks.points(model, box, spec, 60):
        assert ((spec @ model(point)[..., None]).squeeze(2) >= found - 1e-9).all()


def test_a_single_neuron_is_bounded_by_its_triangle() -> None:
    """relu(x) - x / 2 on [-1, 3]: the triangle's corners are (-1, 0), (0, 0), (3, 3)."""
    layers = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    layers[0].weight.data, layers[0].bias.data = (
        torch.tensor([[1.0], [1.0]]).double(),
        torch.tensor([0.0, 9.0]).double(),
    )
    layers[2].weight.data = torch.tensor([[1.0, -0.5], [-1.0, 0.5]]).double()
    layers[2].bias.data = torch.tensor([4.5, -4.5]).double()
    out = layers(fb.box(torch.tensor([[-1.0]]).double(), torch.tensor([[3.0]]).double()))
    torch.testing.assert_close(triangle_bounds(out, torch.eye(2).double()[None]), torch.tensor([[0.0, -1.5]]).double())


def test_certify_by_linear_programs() -> None:
    model, x = crown_networks.build("mlp")
    labels = model(x).argmax(1)
    reports = {
        method: fb.certify(model, [(x, labels)], 0.08, method, attack=Attack(5)) for method in ("ibp", "crown", "lp")
    }
    assert (reports["lp"].margins >= reports["crown"].margins - 1e-6).all()
    assert (reports["lp"].margins > reports["crown"].margins + 1e-6).any()
    assert "float64" in reports["lp"].precision and reports["lp"].margins.dtype == torch.float32
    assert next(model.parameters()).dtype == torch.float32


def test_certify_by_a_relaxation() -> None:
    model, x = crown_networks.build("mlp")
    labels = model(x).argmax(1)
    report = fb.certify(model, [(x, labels)], 0.08, "deepz", attack=Attack(5))
    wanted = fb.bound(model(fb.zonotope(fb.linf_box(x, 0.08, 0, 1))), spec=fb.margin_spec(labels, 4)).lower
    torch.testing.assert_close(report.margins, wanted)


# ---- bad input -----------------------------------------------------------------------------------------------------


def test_what_can_go_wrong_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = crown_networks.build("mlp")
    box = fb.linf_box(x, 0.1)
    with pytest.raises(TypeError, match=r"'deepz' begins at the box, so it wants \(model, box\)"):
        fb.bound(model(box), method="deepz")
    with pytest.raises(ValueError, match=r"method: wanted one of ibp.*crown-0-tria-c"):
        fb.bound(model, box, method="crown-2")
    with pytest.raises(ValueError, match="relaxation: wanted one of adaptive"):
        fb.bound(model, box, method="crown", relaxation="two")
    clamps, inputs = crown_networks.build("clamps")
    with pytest.raises(ValueError, match=r"relaxation: 'zero-c' has lines for ReLU, none for clamp"):
        _ = fb.bound(clamps, fb.linf_box(inputs, 0.1), "crown-ibp-r-0-c").lower
    pooled, inputs = crown_networks.build("max-pooling")
    with pytest.raises(MissingRuleError, match="MaxPool has no triangle relaxation; use method='crown'"):
        triangle_margins(pooled, inputs, torch.zeros(3, dtype=torch.int64), 0.1)
    monkeypatch.setattr(lp, "MAX_VARIABLES", 20)
    with pytest.raises(ValueError, match=r"linear program of this network has over \d+ variables.*use method='crown'"):
        fb.certify(model, [(x, torch.zeros(3, dtype=torch.int64))], 0.1, "lp")
