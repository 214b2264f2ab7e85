"""Schedules against their formulas."""

import math

import pytest

from fastbound.train import schedules as s


def test_linear():
    assert [s.linear_eps(t, 10, 20, 0.5) for t in (0, 10, 15, 20, 99)] == [0, 0, 0.25, 0.5, 0.5]
    assert [s.ramp(t, 5, 5) for t in (4, 5, 6)] == [0, 1, 1]


def published_smoothed(t, start, length, eps_max, mid=0.25, beta=4.0):
    """The formula of the specification, term by term."""
    n = int(mid * length)
    a = eps_max / (n ** (beta - 1) * (beta * (length - n) + n))
    if t <= start:
        return 0.0
    if t < start + n:
        return a * (t - start) ** beta
    joint = a * n**beta
    return min(joint + (eps_max - joint) * (t - start - n) / (length - n), eps_max)


@pytest.mark.parametrize("mid", [0.25, 0.4])
def test_smoothed_equals_its_formula(mid):
    for t in range(0, 500, 3):
        assert s.smoothed_eps(t, 37, 437, 0.03, mid) == pytest.approx(
            published_smoothed(t, 37, 400, 0.03, mid), rel=1e-12, abs=1e-15
        )


def test_smoothed_joins_with_one_slope_and_grows():
    h = 1e-4
    values = [s.smoothed_eps(t, 0, 400, 1.0) for t in range(401)]
    assert values == sorted(values) and values[0] == 0 and values[-1] == 1
    before = (s.smoothed_eps(100, 0, 400, 1.0) - s.smoothed_eps(100 - h, 0, 400, 1.0)) / h
    after = (s.smoothed_eps(100 + h, 0, 400, 1.0) - s.smoothed_eps(100, 0, 400, 1.0)) / h
    assert before == pytest.approx(after, rel=1e-4)


def test_smoothed_of_a_short_ramp_is_linear():
    assert [s.smoothed_eps(t, 0, 3, 0.3) for t in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_log_equals_its_formula():
    for t in range(0, 101):
        formula = 0.3 * math.log((math.e - math.exp(0.01)) * t / 100 + math.exp(0.01))
        assert s.log_eps(20 + t, 20, 120, 0.3) == pytest.approx(formula, rel=1e-12)
    assert s.log_eps(19, 20, 120, 0.3) == 0 and s.log_eps(500, 20, 120, 0.3) == pytest.approx(0.3)
    assert s.log_eps(0, 0, 0, 0.3) == pytest.approx(0.3)


def test_geometric_lr():
    found = [s.geometric_lr(t, 1e-3, 1e-6, 50, 80) for t in (0, 50, 60, 70, 80)]
    assert found == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5, 1e-6])


def test_weights():
    assert [s.linear_in_step(p, 1.0, 0.5) for p in (0, 0.5, 1)] == [1, 0.75, 0.5]
    for end in (0.0, 0.5, 1.0):
        for eps in (0, 0.1, 0.2, 0.4):
            assert s.linear_in_eps(eps, 0.4, 1.0, end) == pytest.approx((0.4 - eps * (1 - end)) / 0.4)
    assert s.linear_in_eps(0.2, 0.4, 0.0, 0.0) == 0
    assert s.linear_in_eps(0.0, 0.0, 1.0, 0.5) == 1


def test_milestones():
    assert [s.milestone_lr(t, 1.0, 0.1, (5, 8)) for t in (0, 4, 5, 7, 8, 50)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
