"""The Triton kernels of `lipschitz_power` in the interpreter; needs TRITON_INTERPRET=1 and a process of its own."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from contract import assert_within, expected_outputs, fenced, fenced_rows, mapped, reference, rounding, sample
from torch import Tensor, nn

import fastbound as fb
from fastbound.errors import BackendError
from fastbound.ops import lipschitz_power

pytest.importorskip("triton", reason="Triton is not installed: its kernels were NOT interpreted")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1; make test runs it in a process of its own", allow_module_level=True)

from fastbound.kernels import _configurations
from fastbound.kernels import lipschitz_power as kernels

STEM = "lipschitz_power"
SAMPLES = [
    pytest.param(index, id=name.replace(" ", "_"))
    for index, (name, _) in enumerate(
        reference(STEM).samples(torch.float32, torch.device("cpu"), torch.Generator().manual_seed(7))
    )
]
# Sizes that cross the interpreter's tile of 32 x 64 x 32 on every side, and end inside of one.
WINDOW = ((2, 1), (1, 0), (1, 2), 2)
LARGE = {
    "linear": ((1, 75), (131, 75), ((), (), (), 1)),
    "conv2d": ((1, 70, 9, 11), (74, 35, 3, 2), WINDOW),
    "conv1d": ((1, 5, 79), (37, 5, 4), ((3,), (2,), (1,), 1)),
}


def large(name: str, iterations: int = 2) -> tuple[Any, ...]:
    shape, weight, window = LARGE[name]
    generator = torch.Generator().manual_seed(3)
    iterate = torch.randn(shape, generator=generator)
    return iterate / iterate.norm(), torch.randn(weight, generator=generator), iterations, *window


def advanced(args: tuple[Any, ...]) -> Tensor:
    with fb.use_backend("triton"):
        return lipschitz_power(*args)


def assert_agrees(args: tuple[Any, ...], layout: Callable[[Tensor], Tensor] = lambda t: t) -> None:
    found = advanced(mapped(args, layout))
    assert_within((found,), expected_outputs(STEM, args), *rounding(STEM, args), torch.float32, "iterate")


@pytest.mark.parametrize("index", SAMPLES)
def test_samples_of_the_reference(index: int) -> None:
    assert_agrees(sample(STEM, index, torch.float32), fenced_rows)


def between_nan(t: Tensor) -> Tensor:
    """The same values, dense, from an aligned address, between two walls of NaN: nothing is copied."""
    wall = 64
    buffer = t.new_full((t.numel() + 2 * wall,), float("nan"))
    return buffer[wall : wall + t.numel()].view(t.shape).copy_(t)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("name", LARGE)
def test_shapes_that_cross_the_tile_between_nan(name: str) -> None:
    args = large(name)
    assert all(between_nan(t).data_ptr() % 16 == 0 for t in args[:2])
    assert_agrees(args, between_nan)


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("power", [83, -83])
def test_norms_neither_overflow_nor_vanish(name: str, power: int) -> None:
    """2^83 is 1e25, whose square no float32 holds; a power of two moves no digit of the unit vector."""
    iterate, weight, *rest = large(name)
    assert torch.equal(advanced((iterate, math.ldexp(1, power) * weight, *rest)), advanced((iterate, weight, *rest)))


@pytest.mark.parametrize("name", LARGE)
def test_one_order_of_sums_and_what_is_no_number(name: str) -> None:
    iterate, weight, *rest = large(name, iterations=1)
    assert torch.equal(advanced((iterate, weight, *rest)), advanced((iterate, weight, *rest)))
    assert not advanced((iterate, 0 * weight, *rest)).any()
    weight[0, 0] = float("nan")
    assert advanced((iterate, weight, *rest)).isnan().any(), "a weight of NaN may not look like one of zeros"


def configured(monkeypatch: pytest.MonkeyPatch, change: Callable[..., _configurations.Configuration]) -> None:
    own = _configurations.configuration
    monkeypatch.setattr(kernels, "configuration", lambda card, *key: change(own, *key))


def test_squares_of_more_programs_than_one_load_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    configured(monkeypatch, lambda own, *key: replace(own("interpreter", *key), block_m=1))
    torch.manual_seed(0)
    assert_agrees((torch.ones(1, 300), torch.randn(2, 300), 1, (), (), (), 1))


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("features", [64, 128], ids=["narrow", "wide"])
def test_a_tile_of_the_card_runs_in_the_interpreter(name: str, features: int, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(monkeypatch, lambda own, kernel, precision, _: own("sm_90", kernel, precision, features))
    assert_agrees(large(name, iterations=1))


@pytest.mark.parametrize("name", LARGE)
def test_two_launches_an_iteration_and_one_at_the_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launches = []

    class Recorder:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: Any) -> Any:
            launches.append(grid)
            return self.kernel[grid]

    for kernel in ("linear_kernel", "conv2d_kernel", "unit_kernel"):
        monkeypatch.setattr(kernels, kernel, Recorder(getattr(kernels, kernel)))
    advanced(large(name, iterations=3))
    assert len(launches) == 2 * 3 + 1


def test_constants_of_a_network_on_triton_and_on_the_reference() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(27, 7))
    x, labels, found = torch.rand(2, 1, 6, 6), torch.tensor([1, 3]), []
    for request in ("triton", "reference"):
        model.zero_grad()
        state = fb.LipschitzState(iterations=2)
        for _ in range(2):  # 50 iterations, then 2 from there
            with fb.use_backend(request, only=[STEM]):
                out = model(fb.lipschitz(x, state))
                constant = out.constant
        (constant + fb.losses.gloro_cross_entropy(out, labels, 0.3)).backward()
        found.append((constant.detach(), *state.buffers(), *(p.grad.clone() for p in model.parameters())))
    for triton, plain in zip(*found):
        assert plain.abs().max() > 0
        torch.testing.assert_close(triton, plain, rtol=1e-4, atol=1e-5)


# ---- wrong arguments -------------------------------------------------------------------------------------------------


def test_three_dimensions_and_float64_are_left_to_the_library() -> None:
    volume, weight = torch.ones(1, 2, 4, 4, 4), torch.ones(3, 2, 2, 2, 2)
    with pytest.raises(BackendError, match=r"convolutions of 1 or 2 dimensions, not weight \(3, 2, 2, 2, 2\)"):
        advanced((volume, weight, 1, (1,) * 3, (0,) * 3, (1,) * 3, 1))
    with pytest.raises(BackendError, match=r"float64 is not supported; use float32"):
        advanced(mapped(large("linear"), Tensor.double))


def test_an_unaligned_tensor_is_copied_and_says_so() -> None:
    iterate, weight, *rest = large("linear")
    with pytest.warns(RuntimeWarning, match=r"\(131, 75\) starts at an address .* multiple of 16 bytes"):
        found = advanced((iterate, fenced(weight), *rest))
    assert torch.equal(found, advanced((iterate, weight, *rest)))


def test_a_card_without_a_table_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "card_of", lambda device, interpreted: "sm_75")
    with pytest.raises(BackendError, match=r"power_linear/ieee/wide on sm_75"):
        advanced(large("linear"))
