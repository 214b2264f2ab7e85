"""The three properties of relaxations, measured in cases with a known answer."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fastbound as fb
from fastbound.domains.interval.loosened import LoosenedInterval
from fastbound.study import Curve, Probe, certified_curve, continuity, scan, sensitivity
from fastbound.study.sensitivity import DEPTHS, STEP, growing_networks

# ---- tightness -----------------------------------------------------------------------------------------------------


def test_area_by_hand() -> None:
    assert Curve([0.0, 0.1, 0.3], [1.0, 0.5, 0.0]).area == pytest.approx(0.1 * 0.75 + 0.2 * 0.25)


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    return layer


def test_certified_accuracy_of_a_threshold() -> None:
    """Class 1 if x > 0.5, so a sample is certified within its distance from 0.5."""
    model = linear([[0.0], [1.0]], [0.5, 0.0])
    x = torch.tensor([[0.1], [0.45], [0.52], [0.8], [0.9]])
    labels = torch.tensor([0, 0, 0, 1, 1])  # the third is wrong
    distances = torch.tensor([0.4, 0.05, 0.0, 0.3, 0.4])
    curve = certified_curve(model, [(x, labels)], 0.1, "box")
    assert curve.radii[:6] == pytest.approx([0.1 * (i / 5) ** 2 for i in range(6)])
    wanted = [float((distances > radius).float().mean()) for radius in curve.radii]
    assert curve.accuracies == pytest.approx(wanted)
    assert curve.accuracies[-1] == 0 < curve.accuracies[-2]
    assert curve.area == pytest.approx(float(distances.mean()), abs=0.02)
    assert (curve.at(curve.radii[5]), curve.at(9.0)) == (pytest.approx(0.6), 0.0)


def test_a_constant_network_is_certified_up_to_radius_1() -> None:
    curve = certified_curve(linear([[0.0], [0.0]], [1.0, 0.0]), [(torch.rand(3, 1), torch.zeros(3).long())], 0.3, "box")
    assert curve.radii[-1] == 1 and curve.area == pytest.approx(1)


def test_a_tighter_relaxation_has_the_larger_area() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3))
    x = torch.rand(50, 10)
    loader = [(x, model(x).argmax(1))]
    areas = [certified_curve(model, loader, 0.05, name).area for name in ("box", "crown-ibp-r", "crown")]
    assert areas == sorted(areas) and areas[0] < 0.9 * areas[-1]


# ---- continuity ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function, jumps",
    [
        (lambda t: t + 0.3 * (t >= 0.37), 0.3 / 1.3),
        (lambda t: t + 0.3 * (t >= 0.37) - 0.1 * (t > 0.7), 0.4 / 1.4),
        (lambda t: 10 * min(t, 0.5) + 0.05 * (t >= 0.8), 0.05 / 5.05),  # every step of the first half changes more
        (lambda t: 0.2 * (t >= 1.0), 1.0),
    ],
)
def test_jumps_are_found_with_their_share(function: Callable[[float], float], jumps: float) -> None:
    found = scan(function)
    assert found.jump_share == pytest.approx(jumps, rel=0.1)
    assert not found.continuous


@pytest.mark.parametrize(
    "function",
    [
        lambda t: math.sin(9 * t),
        lambda t: max(t - 0.4137, 0.0),
        lambda t: abs(t - 0.4137) - 20 * max(t - 0.62, 0.0),
        lambda t: 1.0,
    ],
)
def test_continuous_functions_have_none(function: Callable[[float], float]) -> None:
    found = scan(function)
    assert found.continuous
    assert found.jump_share < 2e-3
    assert len(found.changes) == 11 and found.changes == sorted(found.changes, reverse=True)


def test_a_short_ramp_is_no_jump() -> None:
    """A ramp counts as a jump only until the steps are shorter than the ramp."""
    assert scan(lambda t: min(max(t - 0.4, 0.0), 1 / 1280)).continuous


def at_the_kink(low: float) -> Probe:
    """Logits (relu(x + b) - relu(x), 0) at x = 0.5 and eps 0.1, where x + b lies in [low, low + 0.2].

    A line that follows x + b meets x again and cancels it; a constant does not. So the margin jumps where a relaxation
    goes from one to the other.
    """
    model = nn.Sequential(
        linear([[1.0], [1.0]], [low - 0.4, 0.0]), nn.ReLU(), linear([[1.0, -1.0], [0.0, 0.0]], [0.0] * 2)
    )
    return Probe(model, torch.tensor([[0.5]]), torch.tensor([0]), 0.1)


@pytest.mark.parametrize(
    "low, jumping, continuous",
    [
        (-0.001, ["hbox"], ["box", "deepz", "diag-c", "crown-0-c"]),  # l = 0
        (-0.101, ["crown", "crown-ibp-r", "switch"], ["box", "deepz", "diag-c", "crown-0-c", "crown-1-c"]),  # -l = u
    ],
)
def test_relaxations_jump_where_the_paper_says(low: float, jumping: list[str], continuous: list[str]) -> None:
    probe = at_the_kink(low)
    for name in jumping:
        found = continuity(probe, name, lines=4)
        assert not found.continuous and found.jump_share > 0.05, name
    for name in continuous:
        found = continuity(probe, name, lines=4)
        assert found.continuous and found.jump_share < 2e-3, name


@pytest.mark.parametrize("jumps", [0.0, 10.0])
def test_loosened_intervals_are_as_continuous_as_they_were_made(jumps: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    x, labels = torch.rand(2, 6), torch.tensor([0, 1])
    plain = Probe(model, x, labels, 0.05)
    probe = Probe(model, x, labels, 0.05, lambda box: LoosenedInterval(box, 0.5, jumps))
    assert probe.loss("box", {}) > plain.loss("box", {}) + 0.01
    assert continuity(probe, "box").continuous == (jumps == 0)


# ---- sensitivity ---------------------------------------------------------------------------------------------------


def test_sensitivity_by_hand() -> None:
    """One unit with z in [l, u], l < 0 < u: the lower end of DeepZ's ReLU is u l / (u - l), its upper end u."""
    x, eps = 0.5, 0.1
    probes = []
    for sign in (1.0, -1.0):
        model = nn.Sequential(linear([[1.0]], [-0.52]), nn.ReLU(), linear([[sign], [0.0]], [0.0, 0.0]))
        probes.append(Probe(model, torch.tensor([[x]]), torch.tensor([0]), eps))

    def margin(weight: Tensor) -> Tensor:
        low, high = weight * (x - eps) - 0.52, weight * (x + eps) - 0.52
        return high * low / (high - low)

    generator = torch.Generator().manual_seed(0)
    torch.randint(1, (1,), generator=generator)
    share = STEP * torch.randn(1, generator=generator, dtype=torch.float64)
    below, here, above = (margin(1 + sign * share) for sign in (-1, 0, 1))
    wanted = abs(above - 2 * here + below) / abs(above - below) * 2
    assert wanted > 1e-4
    assert sensitivity(probes[0], "deepz", units=1) == pytest.approx(float(wanted), rel=1e-3)
    assert sensitivity(probes[0], "box", units=1) is None  # the lower end is 0
    for name in ("box", "hbox"):
        assert sensitivity(probes[1], name, units=1) < 1e-11


def test_units_of_a_convolution_are_its_filters() -> None:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(1, 3, 3, 2),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(27, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )
    probe = Probe(nn.Sequential(*layers), torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), 0.1)
    found = {name: sensitivity(probe, name, units=8) for name in ("box", "crown-ibp-r", "crown")}
    assert found["box"] < 1e-9 and min(found["crown"], found["crown-ibp-r"]) > 1e-4


def test_it_grows_with_depth_for_relaxations_whose_slopes_compound() -> None:
    torch.manual_seed(0)
    x, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    probes = [Probe(network, x, labels, 0.1) for network in growing_networks((1, 8, 8), 10)]
    found = {
        name: [sensitivity(probe, name, units=10) for probe in (probes[0], probes[1], probes[3])]
        for name in ("box", "hbox", "crown-ibp-r", "crown", "deepz")
    }
    assert max(found["box"]) < 1e-9
    for name in ("crown", "deepz"):
        assert found[name][2] > 1e-3
        assert found[name][2] > 3 * max(found["crown-ibp-r"][2], found["hbox"][2])
        assert found[name][2] > 1.5 * found[name][0]


def test_growing_networks_differ_in_depth_alone() -> None:
    state = torch.random.get_rng_state()
    networks = growing_networks((1, 4, 4), 5, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    assert [sum(isinstance(layer, nn.ReLU) for layer in network) for network in networks] == list(DEPTHS)
    weights = [next(network.parameters()) for network in networks]
    assert all(torch.equal(weight, weights[0]) for weight in weights)


def test_a_dead_network_has_no_sensitivity() -> None:
    model = nn.Sequential(linear([[1.0]], [-9.0]), nn.ReLU(), linear([[1.0], [0.0]], [0.0, 0.0]))
    probe = Probe(model, torch.tensor([[0.5]]), torch.tensor([0]), 0.1)
    assert sensitivity(probe, "crown") is None
    assert continuity(probe, "crown").jump_share < 2e-3


# ---- the probe -----------------------------------------------------------------------------------------------------


def test_a_probe_bounds_as_the_library_does_and_leaves_the_model_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    x, labels = torch.rand(2, 6), torch.tensor([0, 1])
    probe = Probe(model, x, labels, 0.05)
    other = {"0.weight": torch.randn(8, 6, dtype=torch.float64)}
    moved = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    moved.load_state_dict({**before, **other})
    box = fb.linf_box(x.double(), 0.05, 0, 1)
    for name in ("box", "deepz", "crown"):
        wanted = fb.bound(moved, box, "ibp" if name == "box" else name, fb.margin_spec(labels, 3))
        torch.testing.assert_close(probe.margins(name, other), wanted.lower)
        assert probe.loss(name, other) == pytest.approx(fb.losses.robust_cross_entropy(wanted).item())
    assert model.training and all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
