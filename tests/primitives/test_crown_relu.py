"""`crown_relu` beyond its contract: the lines bound the function, touch it where they should, and survive extremes."""

from __future__ import annotations

import pytest
import torch

from fastbound.crown.relaxations import lines
from fastbound.domains import functions
from fastbound.ops import crown_relu

RELAXATIONS = ("adaptive", "same-slope", "zero", "one")
FUNCTIONS = {
    **{f"leaky_relu {a}": functions.leaky_relu(a) for a in (0.0, 0.1, 1.0, 3.0)},
    **{
        f"clamp {limits}": functions.clamp(*limits)
        for limits in ((0.0, 6.0), (-1.0, 1.0), (None, 0.5), (-0.5, None), (1.0, -1.0))
    },
    "sigmoid": functions.FIXED[torch.sigmoid],
    "tanh": functions.FIXED[torch.tanh],
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_both_lines_bound_the_function_on_the_whole_interval(name: str, relaxation: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    center = torch.randn(4000, generator=generator, dtype=dtype) * 4
    radius = 10 ** (torch.rand(4000, generator=generator, dtype=dtype) * 6 - 4)
    radius[:50], center[50:100] = 0, 0
    center[100:150] = radius[100:150]  # a lower end of exactly 0
    function = FUNCTIONS[name]
    found = lines(function, center, radius, relaxation)
    at = torch.linspace(-1, 1, 201, dtype=dtype).unsqueeze(1)
    z = center + at * radius
    y = function.value(z)
    slack = 8 * torch.finfo(dtype).eps * (1 + center.abs() + radius) * 4
    lower = found.lower_slope * z + (0 if found.lower_offset is None else found.lower_offset)
    upper = found.upper_slope * z + found.upper_offset
    assert (lower <= y + slack).all() and (y <= upper + slack).all()
    gap = (upper - lower).amax(0)
    assert (gap <= 2.01 * radius * function.lipschitz + slack).all(), "loose"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_numbers_at_the_edge_of_the_type(dtype: torch.dtype) -> None:
    tiny, huge = torch.finfo(dtype).tiny, torch.finfo(dtype).max / 8
    center = torch.tensor([[0.0, tiny / 4, -tiny / 4, huge / 2, -huge / 2, 0.0, 1.0, -1.0]], dtype=dtype)
    radius = torch.tensor([[0.0, tiny / 2, tiny / 2, huge, huge, tiny, 1.0, 1.0]], dtype=dtype)
    for relaxation in RELAXATIONS:
        tensors = [
            t.clone().requires_grad_() for t in (torch.tensor([[[1.0] * 8, [-1.0] * 8]], dtype=dtype), center, radius)
        ]
        rows, bias = crown_relu(*tensors, relaxation=relaxation)
        assert rows.isfinite().all() and bias.isfinite().all()
        assert ((rows.abs() >= 0) & (rows.abs() <= 1)).all()
        gradients = torch.autograd.grad(rows.sum() + bias.sum(), tensors)
        assert not any(g.isnan().any() for g in gradients)


def test_active_and_dead_neurons_are_exact_and_chords_meet_both_ends() -> None:
    rows = torch.tensor([[[-1.0, -1.0, -1.0, -2.0]]])
    center, radius = torch.tensor([[3.0, -3.0, 2.0, 1.0]]), torch.tensor([[1.0, 1.0, 2.0, 3.0]])
    out, bias = crown_relu(rows, center, radius)
    torch.testing.assert_close(out, torch.tensor([[[-1.0, 0.0, -1.0, -2 * 4 / 6]]]))
    torch.testing.assert_close(bias, torch.tensor([[-2 * 8 / 6]]))


def test_bad_input_is_named() -> None:
    rows, center = torch.zeros(2, 3, 4), torch.zeros(2, 4)
    with pytest.raises(ValueError, match="relaxation: wanted one of"):
        crown_relu(rows, center, center, relaxation="loose")
    with pytest.raises(ValueError, match="negative_slope: wanted a number in"):
        crown_relu(rows, center, center, negative_slope=2.0)
    with pytest.raises(ValueError, match="crown_relu: rows: wanted"):
        crown_relu(rows, center[:1], center[:1])
