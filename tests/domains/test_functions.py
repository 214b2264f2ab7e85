"""Entries of element-wise functions: what each says of its function holds, and all bounds made of it are sound."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import containment
import pytest
import torch
import torch.nn.functional as F
from function_cases import CASES, Case, intervals, made, points
from torch import Tensor, nn

import fastbound as fb
from fastbound.domains import rules
from fastbound.errors import MissingRuleError
from fastbound.shapes import Cover, Curved, Function, Line

COUNT = 100_000
every_case = pytest.mark.parametrize("name", CASES)
both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def excess(found: Tensor, least: Tensor, magnitude: Tensor, dtype: torch.dtype, noise: Tensor) -> Tensor:
    """By how many units of rounding ``found`` [P, N] lies below ``least`` [P, N], at the most."""
    unit = torch.finfo(dtype).eps
    return ((least - found) / (unit * (magnitude + noise) + torch.finfo(dtype).tiny * 1e3)).max()


def check_bounds(function: Function, case: Case, dtype: torch.dtype, count: int) -> None:
    """Range, both lines and the two parallel lines hold at points of the intervals, up to a few roundings.

    A line is evaluated in float64, so it errs by the roundings of its slope and offset: 8 units of their magnitudes.
    """
    lower, upper = intervals(function, count, dtype)
    x = points(lower, upper, 6)
    y, wide = function.value(x).double(), x.double()
    noise = case.noise * wide.abs() + y.abs()
    low, high = (end.double() for end in function.range(lower, upper))
    assert excess(y, low.expand_as(y), low.abs() + high.abs(), dtype, noise) <= 8, "below the range"
    assert excess(-y, -high.expand_as(y), low.abs() + high.abs(), dtype, noise) <= 8, "above the range"
    for sign, line in ((1, function.lower_line(lower, upper)), (-1, function.upper_line(lower, upper))):
        slope, offset = (t.double() for t in line)
        assert slope.isfinite().all() and offset.isfinite().all()
        magnitude = slope.abs() * torch.maximum(lower.abs(), upper.abs()).double() + offset.abs()
        found = excess(sign * y, sign * (slope * wide + offset), magnitude, dtype, noise)
        assert found <= 8, f"{'below the lower' if sign > 0 else 'above the upper'} line by {found:.3g} roundings"
    slope, offset, width = (t.double() for t in function.cover(lower, upper))
    magnitude = slope.abs() * torch.maximum(lower.abs(), upper.abs()).double() + offset.abs() + width
    distance = (y - slope * wide - offset).abs()
    assert excess(-distance, -width.expand_as(y), magnitude, dtype, noise) <= 8, "outside the parallel lines"


@every_case
@both_types
def test_bounds_hold_on_random_intervals(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    check_bounds(made(case, dtype), case, dtype, COUNT if dtype == torch.float32 else COUNT // 5)


def grid(lower: Tensor, upper: Tensor) -> Tensor:  # [N], [N] -> [N, P]
    """Points from end to end."""
    share = torch.linspace(0, 1, 1001, dtype=torch.float64)
    x = lower.unsqueeze(1) + (upper - lower).unsqueeze(1) * share
    return torch.minimum(torch.cat((x, lower.unsqueeze(1), upper.unsqueeze(1)), 1), upper.unsqueeze(1))


def best(x: Tensor, y: Tensor, middle: Tensor) -> Tensor:  # [N, P], [N, P], [N] -> [N]
    """The height at the middle of the lowest line above points: brute force.

    Of a line through a point on either side, the point furthest above it takes the place of the one on its side.
    """

    def at(values: Tensor, index: Tensor) -> Tensor:  # [N, P], [N] -> [N]
        return values.gather(1, index.unsqueeze(1)).squeeze(1)

    x = x - middle.unsqueeze(1)
    left, right = x.argmin(1), x.argmax(1)
    least = torch.full_like(middle, math.inf)
    for _ in range(16):  # from 9 parts in a million after 8 to the last digit
        slope = (at(y, right) - at(y, left)) / (at(x, right) - at(x, left))
        height, highest = (y - slope.unsqueeze(1) * x).max(1)
        least = torch.minimum(least, height)
        on_the_right = at(x, highest) > 0
        left, right = torch.where(on_the_right, left, highest), torch.where(on_the_right, highest, right)
    return least


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.tight])
def test_the_area_between_the_lines_is_the_least(name: str) -> None:
    """Within a tenth of brute force, whose own points miss a little of the area, and the lines touch the function."""
    function = made(CASES[name], torch.float64)
    lower, upper = intervals(function, 1500, torch.float64)
    kept = (upper - lower > 1e-4) & (torch.maximum(lower.abs(), upper.abs()) < 30)
    lower, upper = lower[kept], upper[kept]
    x = grid(lower, upper)
    y, middle = function.value(x), (lower + upper) / 2
    (below, low), (above, high) = function.lower_line(lower, upper), function.upper_line(lower, upper)
    found = (above - below) * middle + high - low
    least = best(x, y, middle) + best(x, -y, middle)
    scale = y.abs().amax(1) + (upper - lower) * (above.abs() + below.abs()) + CASES[name].noise * x.abs().amax(1)
    assert (found <= 1.1 * least + 1e-9 * scale).all()
    for sign, slope, offset in ((1, above, high), (-1, below, low)):
        gap = (sign * (slope.unsqueeze(1) * x + offset.unsqueeze(1) - y)).amin(1)
        assert (gap <= 0.02 * (y.amax(1) - y.amin(1)) + 0.02 * (upper - lower) + 1e-9 * scale).all(), "touches nowhere"


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "erf", "silu", "softplus", "exp"])
def test_roundings_of_lines_cancel_out(name: str) -> None:
    """In float32, on intervals so short that the lines nearly meet: a network would add up what errs to one side."""
    function = made(CASES[name], torch.float32)
    lower = torch.randn(20_000)
    upper = lower + 1e-5
    middle = (lower.double() + upper.double()) / 2

    def gap(*ends: Tensor) -> Tensor:
        below, low, above, high = (t.double() for t in (*function.lower_line(*ends), *function.upper_line(*ends)))
        return (above - below) * middle + high - low

    unit = torch.finfo(torch.float32).eps * function.value(middle).abs()
    bias = (gap(lower, upper) - gap(lower.double(), upper.double())) / unit
    assert bias.mean().abs() < 0.1


@every_case
def test_the_range_is_attained(name: str) -> None:
    case = CASES[name]
    function = made(case, torch.float64)
    lower, upper = intervals(function, 2000, torch.float64)
    kept = torch.maximum(lower.abs(), upper.abs()) < 30
    lower, upper = lower[kept], upper[kept]
    x = grid(lower, upper)
    y, (low, high) = function.value(x), function.range(lower, upper)
    slack = 0.01 * (y.amax(1) - y.amin(1)) + 1e-3 * (upper - lower) + 1e-12
    assert case.tight is False or ((low >= y.amin(1) - slack) & (high <= y.amax(1) + slack)).all()


# ---- what an entry says ----------------------------------------------------------------------------------------------


@every_case
def test_derivative_and_lipschitz_constant(name: str) -> None:
    function = made(CASES[name], torch.float64)
    lower, upper = intervals(function, 5000, torch.float64)
    inner = torch.randn(20_000, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 4
    x = torch.cat((lower, upper, inner if function.defined is None else lower))
    x = x[x.abs() < 1e3].requires_grad_()
    slope = torch.zeros_like(x)
    if not name.startswith("heaviside"):  # of which torch knows no derivative
        (slope,) = torch.autograd.grad(function.value(x).sum(), x)
    away = torch.ones_like(x, dtype=torch.bool)
    for place in (*range(-7, 8), *(p / 10 for p in range(-40, 41))):
        away &= (x - place).abs() > 1e-9
    # The third of hardswish and the sixth of hardsigmoid are float32 in torch's own derivatives.
    torch.testing.assert_close(function.derivative(x)[away], slope[away], rtol=1e-7, atol=1e-9)
    steepest = float(function.lipschitz)
    assert (function.derivative(x).abs() <= steepest * (1 + 1e-12)).all(), "steeper"
    if steepest < math.inf:
        assert slope.abs().max() >= 0.99 * steepest, "not the least constant"
        x = x.detach().sort().values
        rise, run = function.value(x).diff().abs(), x.diff()
        rounding = 1e-14 * (1 + x[1:].abs() + function.value(x)[1:].abs())
        assert (rise <= steepest * run + rounding).all(), "a jump between neighbours"


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if isinstance(made(c, torch.float64).shape, Curved)])
def test_pieces_bend_as_they_say(name: str) -> None:
    """Second differences have the sign of the piece; the function turns where it says."""
    function = made(CASES[name], torch.float64)
    shape = function.shape
    assert isinstance(shape, Curved)
    ends = [-9.0, *map(float, shape.bends), 9.0]
    for index, (start, end) in enumerate(pairwise(ends)):
        x = torch.linspace(start, end, 2003, dtype=torch.float64)[1:-1]
        if function.defined is not None:
            x = x[function.defined.holds(x, x)]
        second = function.value(x).diff(n=2)
        if function.defined is not None:
            second = second[function.defined.holds(x[:-2], x[2:])]  # not across a pole
        sign = 1 if shape.convex == (index % 2 == 0) else -1
        assert (sign * second >= -1e-14 * (1 + function.value(x).abs().max())).all(), f"piece {index}"
    if shape.turn is not None and function.defined is None:
        extreme = function.value(torch.tensor(shape.turn, dtype=torch.float64))
        around = function.value(shape.turn + torch.linspace(-1, 1, 20_001, dtype=torch.float64))
        assert ((around - extreme) * (-1 if shape.rises else 1) >= -1e-15).all()


def test_every_entry_has_a_case() -> None:
    assert {rules.canonical(case.torch_function) for case in CASES.values()} == set(rules.ENTRIES)


def test_every_reader_answers_every_entry() -> None:
    for function in rules.ENTRIES:
        for domain in (fb.Interval, fb.Zonotope, fb.Lipschitz):
            assert rules.has_rule(domain, function), f"{rules.function_name(function)} of {domain.__name__}"


WRONG: dict[str, Callable[[Function], Function]] = {
    "the other curvature": lambda f: replace(f, shape=replace(f.shape, convex=False)),  # type: ignore[type-var]
    "an inflection missed": lambda f: replace(f, shape=replace(f.shape, bends=())),  # type: ignore[type-var]
    "an inflection elsewhere": lambda f: replace(f, shape=replace(f.shape, bends=(1.0,))),  # type: ignore[type-var]
    "falling": lambda f: replace(f, shape=replace(f.shape, rises=False)),  # type: ignore[type-var]
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_entry_is_noticed(wrong: str) -> None:
    case = CASES["tanh"]
    with pytest.raises(AssertionError, match=r"below the|above the|outside the"):
        check_bounds(WRONG[wrong](made(case, torch.float64)), case, torch.float64, 5000)


# ---- soundness does not rest on the search ---------------------------------------------------------------------------


def test_lines_hold_where_the_search_has_not_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastbound.shapes import curved

    monkeypatch.setattr(curved, "BISECTIONS", 2)
    for name in ("sigmoid", "gelu", "silu", "hardswish", "tan", "pow 3", "selu"):
        check_bounds(made(CASES[name], torch.float64), CASES[name], torch.float64, 5000)


# ---- gradients -------------------------------------------------------------------------------------------------------


def lines(function: Function) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    return lambda lower, upper: (*function.lower_line(lower, upper), *function.upper_line(lower, upper))


@every_case
def test_gradients_of_ranges_and_lines(name: str) -> None:
    """Chords, tangents at the middle, tangents through an end, and the two parallel lines."""
    function = made(CASES[name], torch.float64)
    lower = torch.tensor([0.31, 1.13, 1.61, 0.57, 2.21, 0.3], dtype=torch.float64, requires_grad=True)
    upper = torch.tensor([0.43, 1.27, 1.93, 3.46, 2.83, 1.47], dtype=torch.float64, requires_grad=True)
    if function.defined is not None:
        kept = function.defined.holds(lower, upper)
        lower, upper = (end.detach()[kept].requires_grad_() for end in (lower, upper))
    # Points of tangency are found up to 1e-9, and moved by 1e-6 here.
    assert torch.autograd.gradcheck(function.range, (lower, upper))
    assert torch.autograd.gradcheck(lines(function), (lower, upper), atol=5e-3)
    assert torch.autograd.gradcheck(function.cover, (lower, upper), atol=5e-3)


@every_case
def test_gradients_are_finite_everywhere(name: str) -> None:
    function = made(CASES[name], torch.float32)
    lower, upper = intervals(function, 3000, torch.float32)
    kept = (upper > lower) & (torch.maximum(lower.abs(), upper.abs()) < 20) & (upper - lower > 1e-3)
    lower, upper = lower[kept].requires_grad_(), upper[kept].requires_grad_()
    found = torch.stack((*lines(function)(lower, upper), *function.range(lower, upper), *function.cover(lower, upper)))
    for gradient in torch.autograd.grad(found.sum(), (lower, upper)):
        assert gradient.isfinite().all()


# ---- in a model ------------------------------------------------------------------------------------------------------


class Around(nn.Module):
    """An entry between two layers; first into (0.2, 1.4), where every entry is defined, if it is not everywhere."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(3, 8), nn.Linear(8, 4)
        self.case = case
        self.restricted = made(case, torch.float64).defined is not None

    def forward(self, x: Any) -> Any:
        x = self.before(x)
        x = x.sigmoid() * 1.2 + 0.2 if self.restricted else x * 3
        return self.after(self.case.torch_function(x, *self.case.arguments, **self.case.keywords))


@every_case
@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown", "hbox", "deepz", "lipschitz"])
def test_models_stay_within_their_bounds(name: str, method: str) -> None:
    torch.manual_seed(0)
    model = Around(CASES[name]).double()
    x = torch.randn(6, 3, dtype=torch.float64)
    for eps in (0.02, 0.3):
        if method != "lipschitz":
            containment.assert_within(fb.bound(model, fb.linf_box(x, eps), method=method), model, x, eps)
        elif float(made(CASES[name], torch.float64).lipschitz) < math.inf:
            containment.by_lipschitz(model, x, eps)
        else:
            with pytest.raises(NotImplementedError, match="no Lipschitz constant"):
                model(fb.lipschitz(x))


@every_case
def test_crown_is_tighter_than_intervals_where_lines_help(name: str) -> None:
    """And never looser; with one layer before the function both read the same bounds, so what helps is the lines."""
    torch.manual_seed(1)
    model = nn.Sequential(Around(CASES[name]).double(), nn.Linear(4, 2).double())
    x = torch.randn(6, 3, dtype=torch.float64)
    with torch.no_grad():
        interval, crown = (fb.bound(model, fb.linf_box(x, 0.02), method=method) for method in ("ibp", "crown"))
    steps = ("sign", "heaviside", "floor", "ceil", "round", "hardshrink", "threshold", "clamp, crossed", "pow 0")
    assert (crown.radius <= interval.radius + 1e-12).all()
    if not name.startswith(steps):
        assert crown.radius.mean() < 0.9 * interval.radius.mean()


@pytest.mark.parametrize(
    ("function", "low", "high", "message"),
    [
        (torch.log, -0.5, 0.5, r"torch\.log: wanted numbers > 0, got \[-0\.5, 0\.5\] at \[0, 1\]; clamp the input"),
        (torch.reciprocal, -0.5, 0.5, r"torch\.reciprocal: wanted intervals on one side of 0, got \[-0\.5, 0\.5\]"),
        (lambda x: 1 / x, -0.5, 0.5, "wanted intervals on one side of 0"),
        (torch.sqrt, -0.1, 0.5, r"torch\.sqrt: wanted numbers >= 0"),
        (lambda x: x**-2, -0.1, 0.5, "wanted intervals on one side of 0"),
        (lambda x: x**1.5, -0.1, 0.5, "wanted numbers >= 0"),
        (torch.tan, 1.0, 2.0, "wanted intervals between two poles"),
    ],
    ids=["log", "reciprocal", "1 / x", "sqrt", "x**-2", "x**1.5", "tan"],
)
def test_an_interval_outside_the_domain_of_definition_is_named(
    function: Callable, low: float, high: float, message: str
) -> None:
    lower, upper = torch.tensor([[0.7, low]]), torch.tensor([[0.8, high]])
    for box in (fb.box(lower, upper), fb.zonotope(fb.box(lower, upper))):
        with pytest.raises(ValueError, match=message):
            function(box)
    function(fb.box(lower[:, :1], upper[:, :1]))


def test_arguments_that_are_abstract_are_refused() -> None:
    box = fb.linf_box(torch.rand(2, 3) + 1, 0.1)
    for call in (lambda: torch.pow(box, box), lambda: torch.pow(2.0, box), lambda: torch.clamp(box, box, 1.0)):
        with pytest.raises(NotImplementedError, match="wanted an abstract value as the first argument"):
            call()
    with pytest.raises(NotImplementedError, match="exponent as one number"):
        box ** torch.ones(3)
    with pytest.raises(MissingRuleError, match="SingleProp"):
        torch.sigmoid(fb.singleprop(torch.rand(2, 3), 0.1))


def test_powers_and_quotients_are_spelled_in_many_ways() -> None:
    x = torch.rand(2, 3) + 1
    box = fb.linf_box(x, 0.1)
    for one, other in (
        (box**2, box.pow(2)),
        (box**2, torch.square(box)),
        (1 / box, box.reciprocal()),
        (3 / box, 3 * box**-1),
        (2**box, torch.exp(box * math.log(2))),
        (F.hardshrink(box, 0.5), torch.hardshrink(box, 0.5)),
        (box.arctan(), torch.atan(box)),
        (torch.special.expit(box), box.sigmoid()),
    ):
        torch.testing.assert_close(one.lower, other.lower)
        torch.testing.assert_close(one.upper, other.upper)


def test_an_entry_of_a_user_serves_all_domains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "ENTRIES", dict(rules.ENTRIES))
    monkeypatch.setattr(rules, "_table", {domain: dict(table) for domain, table in rules._table.items()})

    @rules.entry(torch.asinh)
    def asinh() -> Function:
        shape = Curved(convex=True, bends=(0.0,))
        return Function(torch.asinh, lambda x: (1 + x * x).rsqrt(), shape, lipschitz=1.0)

    x = torch.randn(2, 3)
    inside = x + 0.3 * (2 * torch.rand(200, 2, 3) - 1)
    for method in ("ibp", "crown", "deepz"):
        bounds = fb.bound(torch.asinh, fb.linf_box(x, 0.3), method=method)
        assert ((bounds.lower <= inside.asinh() + 1e-6) & (inside.asinh() <= bounds.upper + 1e-6)).all()
    assert torch.asinh(fb.lipschitz(x)).certified_constant() == pytest.approx(1.0)


def test_lines_and_covers_are_named_tuples() -> None:
    assert Line._fields == ("slope", "offset") and Cover._fields == ("slope", "offset", "width")
