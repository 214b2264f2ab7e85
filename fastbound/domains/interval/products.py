"""Products of two intervals."""

from __future__ import annotations

from typing import Any

import torch

from fastbound.domains.interval.value import Interval, streams_of
from fastbound.domains.linear import arithmetic
from fastbound.domains.location import module_path
from fastbound.domains.records import Opaque
from fastbound.domains.rules import function_name, rule
from fastbound.domains.streams import emit


@rule(Interval, torch.mul)
def mul(input: Any, other: Any) -> Interval:
    if isinstance(input, Interval) and isinstance(other, Interval):
        return _product(input, other)
    return arithmetic.mul(input, other)  # type: ignore[return-value]


def _product(left: Interval, right: Interval) -> Interval:
    """Exact range of the product of two independent values, whose extremes are among the products of their bounds."""
    ends = [a * b for a in (left.lower, left.upper) for b in (right.lower, right.upper)]
    lower = torch.minimum(torch.minimum(ends[0], ends[1]), torch.minimum(ends[2], ends[3]))
    upper = torch.maximum(torch.maximum(ends[0], ends[1]), torch.maximum(ends[2], ends[3]))
    clean = (left.nominal, right.nominal)
    nominal = None if clean[0] is None or clean[1] is None else clean[0] * clean[1]
    record = Opaque(f"{function_name(torch.mul)} of two Intervals", module_path())
    return emit(record, (left, right), *streams_of(lower, upper, nominal))
