"""Values of the Triton kernels in every precision: outputs and all gradients of the public operators against float64.

With TRITON_INTERPRET=1 the tests of device "cpu" run in Triton's interpreter; without it, those of device "cuda" run on
a GPU, in a process that compiles. Both run the tiles that are shipped for the card, on the samples of the references
and on shapes that cross these tiles. The interpreter multiplies TF32 as float32, and cuts off what it stores in half
precision.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from contract import (
    assert_within,
    expected_outputs,
    fenced_rows,
    forward_names,
    gradient_names,
    mapped,
    reference,
    rounding,
    sample,
    through_op,
)
from torch import Tensor
from triton_sums import (
    COPIED,
    LARGE,
    PRECISIONS,
    STEMS,
    STRIDED,
    aligned_between_nan,
    assert_agrees_within,
    every_device,
    every_stem,
    expected,
    large,
    normal,
    prepared,
    products,
)

import fastbound as fb
from fastbound.certify.modes import float32_products

pytest.importorskip("triton", reason="Triton is not installed: the values of its kernels were NOT tested")

from fastbound.kernels import _configurations, _convolution, _support, three_pass_tf32
from fastbound.kernels import lipschitz_power as power_kernels


def every_sample(test: Callable[..., None]) -> Callable[..., None]:
    """In every precision; in the interpreter, to which all are the same sums, in one each by turns."""
    chosen = []
    for stem in STEMS:
        samples = reference(stem).samples(torch.float32, torch.device("cpu"), torch.Generator().manual_seed(7))
        for index, (name, _) in enumerate(samples):
            here = [list(PRECISIONS)[index % len(PRECISIONS)]] if _support.INTERPRETED else PRECISIONS
            label = f"{stem}-{name.replace(' ', '_')}"
            chosen += [pytest.param(stem, index, precision, id=f"{label}-{precision}") for precision in here]
    return pytest.mark.parametrize("stem, index, precision", chosen)(test)


def every_large(test: Callable[..., None]) -> Callable[..., None]:
    """In every precision; in the interpreter without fp16, which has the tiles of bf16, and long parts once."""
    chosen = [
        pytest.param(stem, name, precision, id=f"{stem}-{name}-{precision}")
        for stem in STEMS
        for name in LARGE[stem]
        for precision in PRECISIONS
        if not _support.INTERPRETED or precision == "bf16" or (precision != "fp16" and name != "parts")
    ]
    return pytest.mark.parametrize("stem, name, precision", chosen)(test)


# ---- the kernels -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def computing(precision: str) -> Iterator[torch.dtype]:
    """Torch's flags, and what goes beyond them, for a precision; gives the dtype of the tensors."""
    word = "tf32" if precision.startswith("tf32") else "ieee"
    three = three_pass_tf32() if precision == "tf32x3" else contextlib.nullcontext()
    with float32_products(word), three:
        yield PRECISIONS[precision]


@pytest.fixture(autouse=True)
def shipped_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter runs the tiles of the card too."""
    own = _configurations.configuration

    def chosen(card: str, *key: Any) -> _configurations.Configuration:
        return own("sm_90" if card == _configurations.INTERPRETER else card, *key)

    for module in (_convolution, power_kernels):
        monkeypatch.setattr(module, "configuration", chosen)


def computed(
    stem: str, args: tuple[Any, ...], grads: Any, precision: str, layout: Callable[[Tensor], Tensor] = lambda t: t
) -> dict[str, Tensor]:
    """Outputs and gradients of the public operator on Triton, by name."""
    names = [n for n in gradient_names(stem, args) if dict(zip(forward_names(stem), args))[n] is not None]
    with computing(precision):
        outputs, found = through_op(stem, "triton", mapped(args, layout), names, mapped(grads, layout))
    result = {f"output {i}": o for i, o in enumerate(outputs)}
    return result | {f"gradient of {name}": g for name, g in zip(names, found)}


@pytest.mark.filterwarnings(f"ignore:{COPIED}")
@every_sample
@every_device
def test_samples_of_the_reference(stem: str, index: int, precision: str, device: str) -> None:
    args, grads = prepared(stem, sample(stem, index, torch.float32, device), PRECISIONS[precision])
    found = computed(stem, args, grads, precision, fenced_rows)
    wanted = expected(stem, args, grads, precision, truncated=device == "cpu")
    assert_agrees_within(wanted, found, PRECISIONS[precision])


@pytest.mark.filterwarnings(f"error:{COPIED}")
@every_large
@every_device
def test_shapes_that_cross_the_shipped_tiles(stem: str, name: str, precision: str, device: str) -> None:
    args, grads = prepared(stem, mapped(large(stem, name), lambda t: t.to(device)), PRECISIONS[precision])
    found = computed(stem, args, grads, precision, aligned_between_nan)
    wanted = expected(stem, args, grads, precision, truncated=device == "cpu")
    assert_agrees_within(wanted, found, PRECISIONS[precision])


# The effect of TF32 on a product shows only on a card.
if not _support.INTERPRETED:

    @every_stem
    @every_device
    def test_torchs_flag_arrives_and_three_passes_do(stem: str, device: str) -> None:
        args, grads = prepared(stem, mapped(large(stem, "narrow"), lambda t: t.to(device)), torch.float32)
        found = {name: computed(stem, args, grads, name, aligned_between_nan) for name in ("ieee", "tf32", "tf32x3")}
        for precision in ("ieee", "tf32x3"):
            wanted = expected(stem, args, grads, precision)
            assert_agrees_within(wanted, found[precision], torch.float32)
            missed = products(stem, args) - wanted.beyond(found["tf32"]).keys()
            assert not missed, f"TF32 is as exact as {precision}: {missed}"
        for name in products(stem, args):
            assert not torch.equal(found["ieee"][name], found["tf32x3"][name]), f"{name}: IEEE, not three passes"


# ---- power iterations, in IEEE float32 alone -------------------------------------------------------------------------

POWER = "lipschitz_power"
# They cross tiles of 8 x 512 (linear layers; a vector: 4096) and 32 x 32 x 32, and 256 sums of squares.
POWER_SHAPES = {
    "linear": ((1, 4200), (37, 4200), ((), (), (), 1)),
    "conv2d": ((1, 70, 9, 11), (74, 35, 3, 2), STRIDED),
    "conv1d": ((1, 5, 79), (37, 5, 4), ((3,), (2,), (1,), 1)),
}
every_power_shape = pytest.mark.parametrize("name", POWER_SHAPES)


def power(name: str, device: str, iterations: int) -> tuple[Any, ...]:
    """Of positive numbers: if terms cancel, a long chain of products may be off by more than its result."""
    shape, weight, window = POWER_SHAPES[name]
    iterate = normal(*shape).abs()
    return (iterate / iterate.norm()).to(device), normal(*weight).abs().to(device), iterations, *window


def advanced(args: tuple[Any, ...]) -> Tensor:
    with fb.use_backend("triton"):
        return fb.ops.lipschitz_power(*args)


@pytest.mark.filterwarnings(f"error:{COPIED}")
@every_power_shape
@every_device
def test_power_iterations_that_cross_the_shipped_tiles(name: str, device: str) -> None:
    args = power(name, device, iterations=2)
    with computing("tf32"):  # they are IEEE float32 whatever the flags say
        found = advanced(mapped(args, dense_between_nan))
    assert_within((found,), expected_outputs(POWER, args), *rounding(POWER, args), torch.float32, "iterate")


def dense_between_nan(t: Tensor) -> Tensor:
    """Row-major, as the kernels of power iterations read it."""
    wall = 64
    buffer = t.new_full((t.numel() + 2 * wall,), float("nan"))
    return buffer[wall : wall + t.numel()].view(t.shape).copy_(t)


if not _support.INTERPRETED:  # test_triton_power does this there

    @every_power_shape
    @every_device
    def test_norms_neither_overflow_nor_vanish_nor_hide_what_is_no_number(name: str, device: str) -> None:
        """2^83 is 1e25, whose square no float32 holds; a power of two moves no digit of the unit vector."""
        iterate, weight, *rest = power(name, device, iterations=1)
        plain = advanced((iterate, weight, *rest))
        for exponent in (0, 83, -83):
            assert torch.equal(advanced((iterate, math.ldexp(1, exponent) * weight, *rest)), plain)
        assert not advanced((iterate, 0 * weight, *rest)).any()
        weight[0, 0] = float("nan")
        assert advanced((iterate, weight, *rest)).isnan().any()
