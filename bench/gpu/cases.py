"""The calls that the kernel suite measures."""

from __future__ import annotations

from bench.gpu.case import Case, Sizes
from bench.gpu.element_wise_cases import element_wise_cases
from bench.gpu.product_cases import product_cases


def cases(sizes: Sizes) -> list[Case]:
    """Every primitive, forward and backward: first those limited by bytes, then the products."""
    return [*element_wise_cases(sizes), *product_cases(sizes)]
