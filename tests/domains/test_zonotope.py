"""Zonotopes contain all outputs, equal second implementations in float64, and report what they do not support."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import zoo
from test_interval_networks import frozen, points_of
from torch import Tensor, nn

import fastbound as fb
from fastbound.domains import rules
from fastbound.domains.zonotope import Zonotope
from fastbound.domains.zonotope.relaxations import RELAXATIONS
from fastbound.errors import MissingRuleError, TapeError

EPS = 0.05
NETWORKS = [name for name in zoo.MODELS if name != "activations" and "no running" not in name]
every_relaxation = pytest.mark.parametrize("relaxation", RELAXATIONS)


def boxes(x: Tensor) -> tuple[Tensor, Tensor]:
    return (x - EPS).clamp(0, 1), (x + EPS).clamp(0, 1)


# ---- soundness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_points_of_the_box_stay_inside(name: str) -> None:
    """Random points, corners and attacks, for all rules at once."""
    model, x = zoo.build(name, batch=2, dtype=torch.float64)
    lower, upper = boxes(x)
    points = points_of(model, lower, upper, 100)
    with torch.no_grad():
        values = model(torch.cat(points)).unflatten(0, (len(points), x.shape[0]))
    for relaxation in RELAXATIONS:
        out = model(fb.zonotope(fb.box(lower, upper, x), relaxation))
        slack = 1e-12 * (1 + out.radius.max())
        assert (values >= out.lower - slack).all() and (values <= out.upper + slack).all(), relaxation
        assert torch.allclose(out.nominal, model(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in zoo.NORMALISING if name in NETWORKS])
def test_batch_statistics_are_those_of_the_clean_batch(name: str) -> None:
    model, x = zoo.build(name, batch=3, dtype=torch.float64)
    lower, upper = boxes(x)
    plain = frozen(model.train(), x)
    out = model(fb.zonotope(fb.box(lower, upper, x), "deepz"))
    for point in points_of(plain, lower, upper, 20):
        assert (plain(point) >= out.lower - 1e-10).all() and (plain(point) <= out.upper + 1e-10).all()


@pytest.mark.parametrize("function", [torch.relu, torch.sigmoid, torch.tanh, lambda x: F.leaky_relu(x, -0.3)])
@every_relaxation
def test_functions_lie_in_their_cover(relaxation: str, function: Callable[[Tensor], Tensor]) -> None:
    """On intervals on both sides of 0, around it and touching it, every point between the ends."""
    ends = torch.tensor([-3.0, -1.0, -1e-3, 0.0, 1e-7, 0.7, 2.5], dtype=torch.float64)
    lower, upper = (x.flatten() for x in torch.meshgrid(ends, ends, indexing="ij"))
    lower, upper = lower[lower <= upper][:, None], upper[lower <= upper][:, None]
    out = function(fb.zonotope(fb.box(lower, upper), relaxation))
    # The first term is that of x; what does not depend on x is the width of the cover.
    own = torch.zeros_like(lower) if relaxation == "box" else out.errors[0]
    width = out.radius - own.abs()
    for share in torch.linspace(0, 1, 41, dtype=torch.float64):
        x = lower + share * (upper - lower)
        middle = out.center + own * (2 * share - 1)
        assert (function(x) >= middle - width - 1e-12).all() and (function(x) <= middle + width + 1e-12).all()


# ---- equal to others -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_the_box_rule_is_the_interval_domain(name: str) -> None:
    model, x = zoo.build(name)
    box = fb.linf_box(x, EPS, 0, 1)
    wanted, out = model(box), model(fb.zonotope(box, "box"))
    assert len(out.errors) == 0
    width = wanted.radius.detach().max()
    torch.testing.assert_close(out.lower, wanted.lower, rtol=1e-5, atol=float(2e-6 * width))
    torch.testing.assert_close(out.upper, wanted.upper, rtol=1e-5, atol=float(2e-6 * width))


class AffineForms:
    """One sample at a time with dense matrices: center h [n], one column of E [n, m] for each term, remainder b [n]."""

    def __init__(self, lower: Tensor, upper: Tensor, relaxation: str) -> None:
        self.relaxation = relaxation
        self.h, self.b = (lower + upper) / 2, torch.zeros_like(lower)
        self.e = torch.diag((upper - lower) / 2)

    def layer(self, function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> tuple[int, ...]:
        zero = function(torch.zeros(1, *shape, dtype=torch.float64))
        basis = torch.eye(self.h.numel(), dtype=torch.float64).unflatten(1, shape)
        weight = (function(basis) - zero).flatten(1).T
        self.h, self.e, self.b = weight @ self.h + zero.flatten(), weight @ self.e, weight.abs() @ self.b
        return tuple(zero.shape[1:])

    def relu(self) -> None:
        width = self.e.abs().sum(1) + self.b
        for i in range(self.h.numel()):
            low, high = float(self.h[i] - width[i]), float(self.h[i] + width[i])
            if low >= 0:
                continue
            slope = new = 0.0
            if high > 0 and self.relaxation == "deepz":
                slope = high / (high - low + 1e-6)
                new = max(-low * slope, high * (1 - slope)) / 2
            elif high > 0:
                new = high / 2
            self.h[i] = slope * self.h[i] + new
            self.e[i] *= slope
            self.b[i] *= slope
            if self.relaxation == "deepz":
                column = torch.zeros_like(self.h)
                column[i] = new
                self.e = torch.cat((self.e, column[:, None]), 1)
            else:
                self.b[i] += new


def networks() -> dict[str, tuple[nn.Sequential, tuple[int, ...]]]:
    return {
        "fully connected": (
            nn.Sequential(*(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 25), nn.ReLU(), nn.Linear(25, 5))),
            (20,),
        ),
        "convolutions": (
            nn.Sequential(
                *(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.AvgPool2d(2, 1), nn.ReLU()),
                *(nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3)),
            ),
            (2, 9, 9),
        ),
    }


@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("relaxation", ["hbox", "deepz"])
@torch.no_grad()
def test_a_second_implementation_agrees(name: str, relaxation: str) -> None:
    """To 1e-5 of float64; margins too, by merging the last layer with differences of its rows."""
    model, shape = networks()[name]
    x = torch.rand(3, *shape)
    out = model(fb.zonotope(fb.linf_box(x, 0.1, 0, 1), relaxation))
    labels = torch.tensor([2, 0, 1])
    margins = fb.bound(out, spec=fb.margin_spec(labels, out.shape[1]))
    for sample in range(3):
        low, high = ((x[sample].double() + s * 0.1).clamp(0, 1).flatten() for s in (-1, 1))
        wanted, now = AffineForms(low, high, relaxation), shape
        layers = copy.deepcopy(model).double()
        for layer in layers[:-1]:
            if isinstance(layer, nn.ReLU):
                wanted.relu()
            else:
                now = wanted.layer(layer, now)
        last, own = layers[-1], int(labels[sample])
        others = [j for j in range(last.out_features) if j != own]
        margin = copy.deepcopy(last)
        margin.weight.data, margin.bias.data = (p.data[own] - p.data[others] for p in (last.weight, last.bias))
        before = copy.deepcopy(wanted)
        before.layer(margin, now)
        wanted.layer(last, now)
        radius = wanted.e.abs().sum(1) + wanted.b
        assert (out.lower[sample] - (wanted.h - radius)).abs().max() < 1e-5
        assert (out.upper[sample] - (wanted.h + radius)).abs().max() < 1e-5
        assert (margins.lower[sample] - (before.h - before.e.abs().sum(1) - before.b)).abs().max() < 1e-5


def test_a_residual_branch_shares_the_older_terms() -> None:
    """x - x is 0, and a branch with terms of its own meets one that lacks them."""
    first, second = nn.Linear(6, 6).double(), nn.Linear(6, 6).double()
    x = fb.zonotope(fb.linf_box(torch.rand(4, 6, dtype=torch.float64), 0.2))
    assert (x - x).radius.abs().max() == 0
    trunk = torch.relu(first(x))
    branch = torch.relu(second(trunk))
    both = trunk + branch
    torch.testing.assert_close((branch + trunk).radius, both.radius, rtol=0, atol=1e-12)
    assert len(both.errors) == len(branch.errors) > len(trunk.errors) > 6
    assert torch.equal((both - branch).center.abs() < 1e-12, trunk.center.abs() < 1e-12)
    torch.testing.assert_close((both - branch).radius, trunk.radius, rtol=0, atol=1e-12)
    assert ((torch.cat([both, trunk], 1)[:, :6] - both).radius < 1e-12).all()


# ---- margins -------------------------------------------------------------------------------------------------------


@every_relaxation
def test_margins_hold_and_are_tighter_than_those_of_logit_bounds(relaxation: str) -> None:
    model, x = zoo.build("cnn", dtype=torch.float64)
    labels = torch.tensor([0, 3, 1, 4])
    spec = fb.margin_spec(labels, 5)
    out = model(fb.zonotope(fb.linf_box(x, EPS), relaxation))
    found = fb.bound(out, spec=spec)
    same = fb.bound(model, fb.zonotope(fb.linf_box(x, EPS), relaxation), spec=spec.clone().double())
    torch.testing.assert_close(found.lower, same.lower)
    own, others = out.lower.gather(1, labels[:, None]), out.upper
    apart = own - others.gather(1, torch.tensor([[j for j in range(5) if j != y] for y in labels.tolist()]))
    assert (found.lower >= apart - 1e-12).all() and (found.lower > apart + 1e-6).any()
    for point in points_of(model, x - EPS, x + EPS, 40):
        values = (spec.double() @ model(point)[..., None]).squeeze(2)
        assert (values >= found.lower - 1e-12).all() and (values <= found.upper + 1e-12).all()
    torch.testing.assert_close(fb.bound(out).lower, out.lower)


def test_a_point_gives_the_plain_forward() -> None:
    model, x = zoo.build("residual", dtype=torch.float64)
    out = model(fb.zonotope(fb.linf_box(x, 0.0)))
    assert out.radius.max() == 0 and torch.allclose(out.center, model(x))


@pytest.mark.parametrize("name", ["cnn", "batch norm", "residual"])
def test_converted_models_give_the_same(name: str) -> None:
    """Their layers may call rules without dispatch, and the relaxation that reads intervals needs it."""
    model, x = zoo.build(name, dtype=torch.float64)
    converted = fb.convert(copy.deepcopy(model))
    for relaxation in RELAXATIONS:
        wanted, out = (net(fb.zonotope(fb.linf_box(x, EPS), relaxation)) for net in (model, converted))
        torch.testing.assert_close(out.lower, wanted.lower)
        torch.testing.assert_close(out.upper, wanted.upper)


# ---- gradients -----------------------------------------------------------------------------------------------------


@every_relaxation
def test_gradients_of_margins(relaxation: str) -> None:
    """By central differences: weights of every layer, the center and the width of the box."""
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    sizes = [(2, 1, 3, 3), (2,), (5, 8), (5,), (4, 5), (4,)]
    parameters = [torch.randn(size, dtype=torch.float64) * 0.4 for size in sizes]
    inputs = [x, torch.full_like(x, 0.1), *parameters]

    def margins(x: Tensor, eps: Tensor, *weights: Tensor) -> Tensor:
        def model(value: Zonotope) -> Zonotope:
            value = torch.relu(F.conv2d(value, *weights[:2]))
            return F.linear(torch.relu(F.linear(value.flatten(1), *weights[2:4])), *weights[4:])

        out = model(fb.zonotope(fb.box(x - eps, x + eps), relaxation))
        return fb.bound(out, spec=fb.margin_spec(torch.tensor([0, 2]), 4)).lower

    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(margins, inputs, eps=1e-7, atol=1e-5)


# ---- the budget ----------------------------------------------------------------------------------------------------


def small_network() -> tuple[nn.Module, fb.Interval]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3)).double()
    return model, fb.linf_box(torch.rand(4, 10, dtype=torch.float64), 0.7)


def test_beyond_the_budget_an_interval_holds_the_rest() -> None:
    model, box = small_network()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = model(fb.zonotope(box))
    previous = whole.radius
    for terms in (25, 12, 6, 0):  # of 20 elements, 4 samples
        with pytest.warns(UserWarning, match=r"budget of \d+ bytes") as caught:
            out = model(fb.zonotope(box, budget=max(1, terms * 4 * 20 * 8)))
        assert len(caught) == 1 and "sound" in str(caught[0].message)
        assert len(out.errors) < len(whole.errors) and (out.remainder > 0).any()
        assert (out.radius >= previous - 1e-12).all()
        previous = out.radius
        points = box.lower + (box.upper - box.lower) * torch.rand(200, *box.shape, dtype=torch.float64)
        values = model(points)
        assert (values >= out.lower).all() and (values <= out.upper).all()
        margins = fb.bound(out, spec=fb.margin_spec(torch.tensor([0, 1, 2, 0]), 3))
        sampled = (fb.margin_spec(torch.tensor([0, 1, 2, 0]), 3).double() @ values[..., None]).squeeze(3)
        assert (sampled >= margins.lower - 1e-12).all()


def test_a_budget_that_cuts_the_last_layer_is_not_merged_into_it() -> None:
    """The terms that are folded there have gone through the layer already."""
    torch.manual_seed(1)
    layer = nn.Linear(4, 50).double()
    x = torch.rand(2, 4, dtype=torch.float64)
    with pytest.warns(UserWarning, match="budget"):
        out = layer(fb.zonotope(fb.linf_box(x, 0.3), budget=2 * 50 * 8 * 2))
    spec = fb.margin_spec(torch.tensor([3, 7]), 50)
    found = fb.bound(out, spec=spec)
    points = x - 0.3 + 0.6 * torch.randint(0, 2, (500, *x.shape)).double()
    values = (spec.double() @ layer(points)[..., None]).squeeze(3)
    assert (values >= found.lower - 1e-12).all()


def test_without_a_remainder_the_budget_is_an_error() -> None:
    model, box = small_network()
    with pytest.raises(ValueError, match=r"budget: 30 error terms in 2 \(Linear\).*raise it.*fewer samples.*hbox"):
        model(fb.zonotope(box, budget=29 * 4 * 20 * 8, remainder=False))
    assert model(fb.zonotope(box, budget=1 << 20, remainder=False)).radius.min() > 0


# ---- handles and bad input -----------------------------------------------------------------------------------------


def test_copies_and_pickles_keep_the_terms() -> None:
    model, box = small_network()
    out = model(fb.zonotope(box))
    for other in (copy.deepcopy(out), pickle.loads(pickle.dumps(out))):
        assert torch.equal(other.errors, out.errors) and torch.equal(other.lower, out.lower)
        assert not other.errors.requires_grad and "deepz" in repr(other)
        with pytest.raises(TapeError, match="Zonotope has no tape"):
            fb.bound(other)


def test_a_rule_of_ones_own_gives_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rules._table, fb.Zonotope, dict(rules._table[fb.Zonotope]))

    @fb.rule(fb.Zonotope, F.hardsigmoid)
    def hardsigmoid(input: fb.Zonotope) -> fb.Zonotope:
        return fb.Zonotope.from_bounds(F.hardsigmoid(input.lower), F.hardsigmoid(input.upper))

    x = torch.rand(2, 3)
    out = F.hardsigmoid(fb.zonotope(fb.linf_box(x, 0.5)) * 3)
    torch.testing.assert_close(out.upper, F.hardsigmoid(3 * (x + 0.5)))
    assert len(out.errors) == 0 and len((out + out).errors) == 0


def test_what_can_go_wrong_says_so() -> None:
    x = torch.rand(2, 5)
    box = fb.linf_box(x, 0.1)
    with pytest.raises(TypeError, match=r"box: wanted an Interval from fastbound.linf_box, got Tensor"):
        fb.zonotope(x)
    with pytest.raises(ValueError, match="relaxation: wanted one of box, hbox"):
        fb.zonotope(box, "deepzono")
    with pytest.raises(ValueError, match="budget: wanted a positive number of bytes, got 0"):
        fb.zonotope(box, budget=0)
    with pytest.raises(ValueError, match="box: wanted the input box itself"):
        fb.zonotope(torch.relu(box))
    with pytest.raises(MissingRuleError, match=r"layer_norm has no rule for Zonotope in 0 \(LayerNorm\)"):
        nn.Sequential(nn.LayerNorm(5))(fb.zonotope(box))
    with pytest.raises(TypeError, match="method: 'crown' walks back over an Interval, got a Zonotope"):
        fb.bound(torch.relu(fb.zonotope(box)), method="crown")
    with pytest.raises(TypeError, match=r"meets an? (Interval|Zonotope) and an? (Interval|Zonotope)"):
        fb.zonotope(box) + box
    with pytest.raises(NotImplementedError, match=r"batch_norm in 0 .*uses two kinds of bounds"):
        nn.Sequential(nn.BatchNorm1d(5))(fb.zonotope(box, "deepz-ibp-r"))
    with pytest.raises(TypeError, match="the model returned Tensor, wanted one Zonotope"):
        fb.bound(lambda value: value.center, fb.zonotope(box))
