"""`lipschitz_power` against singular values and the formula; what it refuses. For its kernels see test_triton_power."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fastbound as fb
from fastbound.ops import lipschitz_power

MAPS = ((1, 1), (1, 1), (1, 1))  # stride, padding, dilation of a 3 x 3 convolution that keeps the size


def test_the_iterate_becomes_the_singular_vector() -> None:
    torch.manual_seed(0)
    weight, start = torch.randn(7, 5, dtype=torch.float64), torch.randn(1, 5, dtype=torch.float64)
    v = lipschitz_power(start, weight, 400)[0]
    first = torch.linalg.svd(weight).Vh[0]
    torch.testing.assert_close(v * (v @ first).sign(), first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_formula_to_the_bit(dtype: torch.dtype) -> None:
    """As it was before it had a name of its own: runs repeat."""
    torch.manual_seed(0)

    def unit(x: Tensor) -> Tensor:
        return F.normalize(x.flatten(), dim=0, eps=torch.finfo(dtype).tiny).view_as(x)

    v = start = unit(torch.randn(1, 50, dtype=dtype))
    weight = torch.randn(30, 50, dtype=dtype)
    for _ in range(3):
        v = unit((v @ weight.T) @ weight)
    assert torch.equal(lipschitz_power(start, weight, 3), v)

    v = start = unit(torch.randn(1, 4, 9, 8, dtype=dtype))
    weight = torch.randn(6, 2, 3, 3, dtype=dtype)
    for _ in range(3):
        v = unit(F.conv_transpose2d(F.conv2d(v, weight, None, 2, 1, 1, 2), weight, None, 2, 1, (0, 1), 2, 1))
    assert torch.equal(lipschitz_power(start, weight, 3, (2, 2), (1, 1), (1, 1), 2), v)


def test_it_has_no_gradient_and_leaves_its_arguments_alone() -> None:
    iterate, weight = torch.ones(1, 3), torch.randn(4, 3, requires_grad=True)
    before = iterate.clone()
    out = lipschitz_power(iterate, weight, 2)
    assert not out.requires_grad and out.data_ptr() != iterate.data_ptr() and torch.equal(iterate, before)


def test_autocast_does_not_lower_it() -> None:
    torch.manual_seed(0)
    for args in (
        (torch.ones(1, 65), torch.randn(33, 65), 2),
        (torch.ones(1, 3, 9, 9), torch.randn(8, 3, 3, 3), 2, *MAPS),
    ):
        plain = lipschitz_power(*args)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(lipschitz_power(*args), plain)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, r"iterations: wanted at least 1, got 0"),
        ({"weight": torch.ones(3)}, r"weight: wanted \[O, I\] .* or \[O, C / groups, \*K\] .* got \(3,\)"),
        (
            {"iterate": torch.ones(1, 2, 5, 5)},
            r"iterate: wanted one input \[1, 4, size, size\] .* shape \(1, 2, 5, 5\)",
        ),
        ({"iterate": torch.ones(4, 5, 5)}, r"iterate: wanted one input .* shape \(4, 5, 5\)"),
        ({"iterate": torch.ones(2, 4, 5, 5)}, r"iterate: wanted one input .* shape \(2, 4, 5, 5\)"),
        (
            {"iterate": torch.ones(1, 4, 0, 5), "padding": (0, 0)},
            r"iterate: wanted room for .*, got maps of \(0, 5\) pixels",
        ),
        ({"stride": ()}, r"stride: wanted 2 numbers from 1 on .* got \(\)"),
        ({"stride": (0, 1)}, r"stride: wanted 2 numbers from 1 on .* got \(0, 1\)"),
        ({"padding": (1, -1)}, r"padding: wanted 2 numbers from 0 on .* got \(1, -1\)"),
        ({"dilation": (1, 1, 1)}, r"dilation: wanted 2 numbers from 1 on .* got \(1, 1, 1\)"),
        ({"groups": 4}, r"groups: wanted a number that divides the 6 outputs of weight \(6, 2, 3, 3\).* got 4"),
        ({"groups": 0}, r"groups: .* got 0"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    stride, padding, dilation = MAPS
    good = {"iterate": torch.ones(1, 4, 5, 5), "weight": torch.ones(6, 2, 3, 3), "iterations": 1, "groups": 2}
    good |= {"stride": stride, "padding": padding, "dilation": dilation}
    given = {**good, **changes}
    with pytest.raises(ValueError, match=message):
        lipschitz_power(given.pop("iterate"), **given)


def test_wrong_arguments_of_a_linear_layer_are_named() -> None:
    iterate, weight = torch.ones(1, 4), torch.ones(6, 4)
    with pytest.raises(ValueError, match=r"groups: .* and 1 for a linear layer, got 2"):
        lipschitz_power(iterate, torch.ones(6, 2), 1, groups=2)
    with pytest.raises(ValueError, match=r"padding: wanted 0 numbers .* got \(1,\)"):
        lipschitz_power(iterate, weight, 1, padding=(1,))
    with pytest.raises(ValueError, match=r"iterate: wanted one input \[1, 4\] .* got shape \(1, 5\)"):
        lipschitz_power(torch.ones(1, 5), weight, 1)
    with pytest.raises(TypeError, match=r"lipschitz_power: wanted one dtype, got torch.float32 and torch.float64"):
        lipschitz_power(iterate, weight.double(), 1)


def test_the_state_asks_the_primitive() -> None:
    x, state = torch.rand(2, 5), fb.LipschitzState()
    with fb.use_backend("triton"), pytest.raises(fb.BackendError, match="'triton' cannot serve lipschitz_power"):
        _ = torch.nn.Linear(5, 3)(fb.lipschitz(x, state)).constant


@pytest.mark.gpu
def test_a_graph_records_the_triton_kernels_and_repeats_to_the_bit() -> None:
    pytest.importorskip("triton")
    iterate, weight = torch.randn(1, 4, 9, 8, device="cuda"), torch.randn(6, 2, 3, 3, device="cuda")
    args = (iterate, weight, 3, (2, 2), (1, 1), (1, 1), 2)
    graph = torch.cuda.CUDAGraph()
    with fb.use_backend("triton"):
        eager = lipschitz_power(*args)
        with torch.cuda.graph(graph):
            recorded = lipschitz_power(*args)
    graph.replay()
    assert torch.equal(recorded, eager)
