"""Loosened intervals: as wide as the paper's formula says, sound, and continuous or not."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import crown_networks
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fastbound as fb
from fastbound.domains.interval.loosened import LoosenedInterval
from fastbound.domains.interval.shrunk import ShrunkInterval
from fastbound.errors import MissingRuleError


def loosened(low: list[float], high: list[float], looseness: float, jumps: float = 0.0) -> tuple[Tensor, Tensor]:
    box = fb.box(torch.tensor([low]).double(), torch.tensor([high]).double(), torch.tensor([high]).double())
    out = torch.relu(LoosenedInterval(box, looseness, jumps))
    assert type(out) is LoosenedInterval and torch.equal(out.nominal, box.upper.relu())
    return out.lower[0], out.upper[0]


def test_a_relu_reads_the_wider_interval() -> None:
    lower, upper = loosened([-1.0, 0.4, 2.0], [0.5, 0.7, 3.0], 0.5)
    torch.testing.assert_close(lower, torch.tensor([0.0, 0.0, 1.5]).double())
    torch.testing.assert_close(upper, torch.tensor([1.0, 1.2, 3.5]).double())


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda box: (LoosenedInterval(box, 0.1), LoosenedInterval(box, 0.2)), "looseness: values of 0.1 and 0.2"),
        (lambda box: (LoosenedInterval(box, 0.1, 2), LoosenedInterval(box, 0.1, 3)), "jumps: values of 2 and 3"),
        (lambda box: (ShrunkInterval(box, 0.1), ShrunkInterval(box, 0.2)), "shrink: values of 0.1 and 0.2"),
        (lambda box: (LoosenedInterval(box, 0.1), box), "jumps: values of 0.0 and None"),
    ],
)
def test_values_of_two_settings_do_not_meet(make: Callable[[fb.Interval], tuple[fb.Interval, ...]], name: str) -> None:
    """In either order: the ReLUs that follow would use the settings of the first one."""
    values = make(fb.linf_box(torch.rand(2, 3), 0.1))
    for pair in (values, values[::-1]):
        with pytest.raises(ValueError, match=f"{name} meet"):
            _ = pair[0] + pair[1]


def test_values_of_equal_settings_meet() -> None:
    box = fb.linf_box(torch.rand(2, 3), 0.1)
    out = LoosenedInterval(box, 0.1, 2) + LoosenedInterval(box, 0.1, 2.0)
    assert out.jumps == 2 and torch.equal(out.lower, 2 * box.lower)


def test_jumps_are_as_many_a_unit_as_asked() -> None:
    """F = 4: 2.1 lies 0.6 of a step below 2.25, and 3.2 lies 0.8 of one above 3."""
    lower, upper = loosened([2.1], [3.2], 0.5, 4)
    torch.testing.assert_close(lower, torch.tensor([2.1 - 0.5 * 0.6]).double())
    torch.testing.assert_close(upper, torch.tensor([3.2 + 0.5 * 0.8]).double())
    ends = torch.linspace(2.001, 2.999, 5000).tolist()
    for found in loosened(ends, ends, 0.5, 4):
        assert int((found.diff().abs() > 0.25).sum()) == 3  # 2.25, 2.5 and 2.75
    for found in loosened(ends, ends, 0.5):
        assert found.diff().abs().max() < 1e-3


@pytest.mark.parametrize("jumps", [0.0, 10.0])
def test_it_contains_intervals_and_grows_with_the_looseness(jumps: float) -> None:
    model, x = crown_networks.build("cnn-7", double=True)
    box = fb.linf_box(x, 0.05, 0, 1)
    previous = model(box)
    torch.testing.assert_close(model(LoosenedInterval(box, 0.0, jumps)).lower, previous.lower)
    for looseness in (0.01, 0.5):
        out = model(LoosenedInterval(box, looseness, jumps))
        assert (out.lower < previous.lower + 1e-12).all() and (out.upper > previous.upper - 1e-12).all()
        assert (out.radius > previous.radius).all()
        margins = fb.bound(out, spec=fb.margin_spec(torch.arange(3), 5))
        assert (margins.lower <= fb.bound(model, box, spec=fb.margin_spec(torch.arange(3), 5)).lower + 1e-12).all()
        previous = out


@pytest.mark.parametrize("domain", [LoosenedInterval, ShrunkInterval])
def test_converted_models_keep_the_domains_own_relu(domain: type) -> None:
    model, x = crown_networks.build("cnn-7", double=True)
    box = fb.linf_box(x, 0.05, 0, 1)
    wanted = model(domain(box, 0.5))
    out = fb.convert(copy.deepcopy(model))(domain(box, 0.5))
    torch.testing.assert_close(out.radius, wanted.radius)
    assert not torch.allclose(out.radius, model(box).radius)


def test_a_bound_without_gradients_is_as_loose() -> None:
    model, x = crown_networks.build("cnn-7", double=True)
    box, spec = LoosenedInterval(fb.linf_box(x, 0.05, 0, 1), 0.5), fb.margin_spec(torch.arange(3), 5)
    wanted = fb.bound(model, box, spec=spec).lower
    with torch.no_grad():
        torch.testing.assert_close(fb.bound(model, box, spec=spec).lower, wanted)


@pytest.mark.parametrize("jumps", [0.0, 7.0])
def test_gradients(jumps: float) -> None:
    weight = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    x = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)

    def bounds(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        out = torch.relu(F.linear(LoosenedInterval(fb.linf_box(x, 0.1), 0.3, jumps), weight))
        return out.lower, out.upper

    assert torch.autograd.gradcheck(bounds, (x, weight), eps=1e-7, atol=1e-5)


def test_handles_and_bad_input() -> None:
    box = LoosenedInterval(fb.linf_box(torch.rand(2, 3), 0.1), 0.5, 3.0)
    for other in (copy.deepcopy(box), pickle.loads(pickle.dumps(box))):
        assert (other.looseness, other.jumps) == (0.5, 3.0) and torch.equal(other.lower, box.lower)
    with pytest.raises(ValueError, match="looseness and jumps: wanted numbers of 0 or more, got -1"):
        LoosenedInterval(box, -1.0)
    with pytest.raises(MissingRuleError, match="the loosened ReLU has no backward rule"):
        fb.bound(F.linear(torch.relu(box), torch.ones(2, 3)), method="crown")
