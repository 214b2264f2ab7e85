"""Schedules of the numbers that change during a run, as functions of the step (counted from 0).

Sources: the eps schedules of Gowal et al., 2018, arXiv 1810.12715 (linear) and Zhang et al., 2019, arXiv 1906.06316
(smoothed), beta and kappa linear in eps as in the latter; Leino et al., 2021, arXiv 2102.08452 (log, and the geometric
learning rate).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

# The value at this step: a number, or in a captured step a tensor [] that gets a new value before each replay.
Scheduled = float | Tensor


def is_exactly(value: Scheduled, number: float) -> bool:
    """Whether a scheduled value is the number `number` (0 or 1), so that a step may skip work; False for any tensor."""
    return not isinstance(value, Tensor) and value == number


def ramp(step: float, start: float, end: float) -> float:
    """Progress from 0 at `start` to 1 at `end`; a jump at `start` if the two are equal."""
    if end <= start:
        return float(step >= start)
    return min(max((step - start) / (end - start), 0.0), 1.0)


def linear_eps(step: float, start: float, end: float, eps_max: float) -> float:
    """eps_max times the progress of the ramp."""
    return eps_max * ramp(step, start, end)


def smoothed_eps(step: float, start: float, end: float, eps_max: float, mid: float = 0.25, power: int = 4) -> float:
    """A polynomial over the first `mid` of the ramp, then the straight line that continues it with the same slope.

    eps = a (step - start)^power for the first n = int(mid (end - start)) steps, a = eps_max / (n^(power-1) (power N +
    n)) with N = end - start - n; then linear from a n^power to eps_max. If the first part has no step, the schedule is
    linear.
    """
    first = int(mid * (end - start))
    if first < 1 or step <= start or step >= end:
        return linear_eps(step, start, end, eps_max)
    rest = end - start - first
    # a n^power, written without the huge and the tiny factor.
    joint = eps_max * first / (power * rest + first)
    if step < start + first:
        return joint * ((step - start) / first) ** power
    return joint + (eps_max - joint) * (step - start - first) / rest


def log_eps(step: float, start: float, end: float, eps_max: float) -> float:
    """eps_max ln((e - e^0.01) p + e^0.01) with the progress p of the ramp: fast at first, from eps_max / 100."""
    if step < start:
        return 0.0
    low, high = math.exp(0.01), math.e
    return eps_max * math.log((high - low) * ramp(step, start, end) + low)


def linear_in_step(progress: float, start: float, end: float) -> float:
    """A weight that goes from `start` to `end` with the progress of the ramp (kappa of IBP training)."""
    return start + (end - start) * progress


def linear_in_eps(eps: float, eps_max: float, start: float, end: float) -> float:
    """A weight that goes from `start` at eps 0 to `end` at eps_max (beta and kappa of CROWN-IBP).

    With start 1 it is (eps_max - eps (1 - end)) / eps_max.
    """
    return start if eps_max <= 0 else start - (start - end) * eps / eps_max


def milestone_lr(step: float, lr: float, decay: float, milestones: Sequence[float]) -> float:
    """lr, multiplied by `decay` from each milestone (a step) on."""
    return lr * decay ** sum(step >= milestone for milestone in milestones)


def geometric_lr(step: float, lr: float, lr_end: float, start: float, end: float) -> float:
    """lr up to the step `start`, then down to `lr_end` at `end`, by one factor a step."""
    return lr * (lr_end / lr) ** ramp(step, start, end)
