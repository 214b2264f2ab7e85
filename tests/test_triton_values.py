"""Values of the Triton kernels in every precision: outputs and all gradients of the public operators beside float64.

With TRITON_INTERPRET=1 the tests of device "cpu" run in Triton's interpreter; without it, those of device "cuda" run on
a GPU, in a process that compiles. Both run the tiles that are shipped for the card, on the samples of the references
and on shapes that cross these tiles. The interpreter multiplies TF32 as float32, and cuts off what it stores in half
precision.

An element is a sum of n products. As a share of the sum of their magnitudes it may be off by:

* IEEE float32: gamma(n), one rounding a product.
* bf16, fp16: gamma(2 (n + n / 4)). A product of two of them is exact in float32. A tensor core adds up a group of 8
  products or more and the sum so far: it shifts all to one exponent and cuts off what falls behind the last digit,
  which is up to twice what rounding loses, for each product, each sum so far and each result. What is stored is rounded
  once more.
* TF32: the same, and (1 + 2^-10)^2 - 1 a product. An operand loses 13 digits, 2^-10 of it where they are cut off.
* TF32 in three passes: the same, and 3 x 2^-20 a product. An operand is a = a' + a" + r with a', a" of TF32,
  |a"| <= 2^-10 |a| and |r| <= 2^-20 |a|; of its product with b = b' + b" + s are left out a" b", r b and a s, and what
  is smaller by 2^-10. The sums with a" or b" are small, and so is what they are off by.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from test_contract import (
    as_tuple,
    assert_within,
    backward,
    cotangents,
    expected_gradients,
    expected_outputs,
    fenced_rows,
    forward_names,
    gamma,
    gradient_names,
    mapped,
    reference,
    rounding,
    rounding_bwd,
    sample,
    through_op,
)
from torch import Tensor

import fastbound as fb
from fastbound.certify.modes import float32_products

pytest.importorskip("triton", reason="Triton is not installed: the values of its kernels were NOT tested")

from fastbound.kernels import _configurations, _convolution, _support, three_pass_tf32
from fastbound.kernels import lipschitz_power as power_kernels

STEMS = ("interval_linear", "interval_conv2d", "crown_linear", "crown_conv2d")
PRECISIONS = {
    "ieee": torch.float32,
    "tf32": torch.float32,
    "tf32x3": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
# One process either interprets or compiles, so the other device is no test that was left out.
DEVICES = ["cpu"] if _support.INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)]
COPIED = "a tensor .* is copied for the Triton kernels:RuntimeWarning"

every_device = pytest.mark.parametrize("device", DEVICES)
every_stem = pytest.mark.parametrize("stem", STEMS)


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


# ---- shapes that cross the shipped tiles -----------------------------------------------------------------------------


def normal(*shape: int) -> Tensor:
    """Numbers of both signs, a tenth of them exact zeros."""
    generator = torch.Generator().manual_seed(math.prod(shape))
    out = torch.randn(shape, generator=generator, dtype=torch.float64)
    out[torch.rand(shape, generator=generator) < 0.1] = 0
    return out.float()


# Channels are multiples of 16, as those of networks, and are read in whole words. Tiles have 64 or 128 features and
# pixels, 64 channels or fewer, and parts of 8192 pixels; the last one on each side is not full. "narrow" and "wide":
# the class of the forward's outputs; the input gradient then is of the other. "parts": two in a weight gradient.
_STRIDED = ((2, 1), (1, 0), (1, 2), 2)  # stride, padding, dilation, groups of a 3 x 2 kernel: 13 x 9 to 7 x 7
_HALVED = ((1, 2), (1, 1), (1, 1), 1)  # of a 3 x 3 kernel: 7 x 13 to 7 x 7
_WIDENED = ((1, 1), (0, 1), (1, 1), 1)  # of a 1 x 2 kernel: 64 x 64 to 64 x 65
LARGE: dict[str, dict[str, tuple[Any, ...]]] = {
    "interval_linear": {
        "narrow": ((2, 131, 80), (48, 80)),
        "wide": ((2, 131, 48), (144, 48)),
        "parts": ((2, 8200, 16), (80, 16)),
    },
    "interval_conv2d": {
        "narrow": ((2, 3, 160, 13, 9), (96, 80, 3, 2), *_STRIDED),
        "wide": ((2, 3, 48, 7, 13), (144, 48, 3, 3), *_HALVED),
        "parts": ((2, 2, 16, 64, 64), (48, 16, 1, 2), *_WIDENED),
    },
    "crown_linear": {
        "narrow": ((2, 3, 23, 80), (80, 48)),
        "wide": ((2, 3, 23, 48), (48, 144)),
        "parts": ((2, 41, 100, 80), (80, 16)),
    },
    "crown_conv2d": {
        "narrow": ((1, 3, 160, 7, 7), (160, 48, 3, 2), (13, 9), *_STRIDED),
        "wide": ((1, 3, 48, 7, 7), (48, 144, 3, 3), (7, 13), *_HALVED),
        "parts": ((1, 2, 48, 64, 65), (48, 16, 1, 2), (64, 64), *_WIDENED),
    },
}


def large(stem: str, name: str) -> tuple[Any, ...]:
    first, weight, *rest = LARGE[stem][name]
    parameters = normal(*weight), normal(weight[0])
    if stem.startswith("crown"):
        return normal(*first), *parameters, *rest
    return normal(*first), normal(*first[1:]).abs(), *parameters, *rest


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


def aligned_between_nan(t: Tensor) -> Tensor:
    """The same values in the order that the kernels read, from an aligned address, between two walls of NaN: no copy.

    What stands before and behind a tensor is then what an unmasked load reads.
    """
    wall = 64
    buffer = t.new_full((t.numel() + 2 * wall,), float("nan"))
    order = (*range(t.dim() - 3), t.dim() - 2, t.dim() - 1, t.dim() - 3) if t.dim() >= 4 else tuple(range(t.dim()))
    inner = buffer[wall : wall + t.numel()].view([t.shape[d] for d in order])
    return inner.copy_(t.permute(order)).permute([order.index(d) for d in range(t.dim())])


# ---- what an element may be off by -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sum:
    """How an element comes about: ``terms`` products, of ``kind``

    * ``kernel``: multiplied in the precision that is tested;
    * ``plain``: multiplied and added in float32, whatever the precision;
    * ``torch``: a product of torch's, with the digits that its flags allow, of sums in the dtype of the tensors.
    """

    terms: int
    kind: str = "kernel"


def sums(stem: str, args: tuple[Any, ...]) -> tuple[tuple[Sum, ...], tuple[Sum, ...]]:
    """Of the outputs, and of the gradients in the order of `gradient_names`."""
    first, weight = args[0], args[forward_names(stem).index("weight")]
    taps = weight[0, 0].numel()
    channels, features = weight.shape[1] * taps, weight.shape[0] * taps
    if stem.startswith("interval"):
        like = as_tuple(getattr(reference(stem), f"{stem}_fwd")(*mapped(args, lambda t: t.double())))[1]
        pixels, streams = like.numel() // weight.shape[0], first.shape[0]
        forward = Sum(channels + 1), Sum(channels)
        of_weight = Sum((streams + 1) * pixels)
        return forward, (Sum(features), Sum(features), of_weight, Sum(streams * pixels, "plain"))
    rows = first.shape[:2].numel()
    pixels = first.numel() // max(1, rows * weight.shape[0])
    forward = Sum(features), Sum(2 * pixels * weight.shape[0], "plain")
    return forward, (Sum(channels + 2), Sum(rows * pixels), Sum(pixels + rows, "torch"))


OPERANDS = {"tf32": (1 + 2**-10) ** 2 - 1, "tf32x3": 3 * 2**-20 * (1 + 2**-9)}


def allowed(wanted: Tensor, magnitude: Tensor, found: Sum, precision: str, truncated: bool) -> Tensor:
    """``truncated``: what is stored in half precision is cut off, not rounded."""
    dtype = PRECISIONS[precision]
    half = dtype != torch.float32
    roundings = found.terms + 8  # bias, sign and parts are added behind the sum
    lost = 0.0
    if found.kind == "kernel" and precision != "ieee":
        roundings, lost = 2 * (roundings + roundings // 4), OPERANDS.get(precision, 0.0)
    if found.kind == "torch":
        lost = OPERANDS["tf32"] if precision.startswith("tf32") else 0.0
        lost += found.terms * torch.finfo(dtype).eps if half else 0.0
    off = (lost + gamma(roundings, torch.float32) * (1 + lost)) * magnitude.abs()
    stored = torch.finfo(dtype)
    if half:
        unit = stored.eps if truncated else stored.eps / 2
        return off + unit * (wanted.abs() + off + 2 * stored.tiny)
    return off + 4 * stored.tiny


@dataclass(frozen=True)
class Expected:
    """The float64 values of outputs and gradients by name, with what each may be off by."""

    values: dict[str, Tensor]
    allowed: dict[str, Tensor]

    def beyond(self, found: dict[str, Tensor]) -> dict[str, float]:
        """By how much the elements that are off by more exceed it at most, by name; NaN exceeds everything."""
        result = {}
        for name, value in found.items():
            error = (value.detach().double() - self.values[name]).abs()
            outside = ~(error <= self.allowed[name])
            if outside.any():
                result[name] = (error[outside] / self.allowed[name][outside]).max().item()
        return result


def expected(stem: str, args: tuple[Any, ...], grads: Any, precision: str, truncated: bool = False) -> Expected:
    names = gradient_names(stem, args)
    outputs = expected_outputs(stem, args)
    gradients = expected_gradients(stem, grads, args, names)
    (_, of_outputs), (_, of_gradients) = rounding(stem, args), rounding_bwd(stem, grads, args)
    counts = sums(stem, args)
    labels = [*(f"output {i}" for i in range(len(outputs))), *(f"gradient of {name}" for name in names)]
    rows = zip(labels, (*outputs, *gradients), (*of_outputs, *of_gradients), (*counts[0], *counts[1]))
    values, bounds = {}, {}
    for label, value, magnitude, count in rows:
        if value is not None:
            values[label], bounds[label] = value, allowed(value, magnitude, count, precision, truncated)
    return Expected(values, bounds)


def assert_agrees_within(wanted: Expected, found: dict[str, Tensor], dtype: torch.dtype) -> None:
    assert found.keys() == wanted.values.keys()
    for name, value in found.items():
        assert value.shape == wanted.values[name].shape and value.dtype == dtype, f"{name}: {value.dtype}"
        assert not value.isnan().any(), f"{name}: NaN"
    assert not wanted.beyond(found), f"off by these multiples of what is allowed: {wanted.beyond(found)}"


def test_what_is_no_number_is_beyond_every_bound() -> None:
    wanted = Expected({"output 0": torch.zeros(2)}, {"output 0": torch.full((2,), float("inf"))})
    assert not wanted.beyond({"output 0": torch.tensor([0.0, 1.0])})
    assert wanted.beyond({"output 0": torch.tensor([0.0, float("nan")])}).keys() == {"output 0"}


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


def prepared(stem: str, args: tuple[Any, ...], dtype: torch.dtype) -> tuple[tuple[Any, ...], tuple[Tensor, ...]]:
    """The arguments in a dtype, and gradients for the outputs."""
    args = mapped(args, lambda t: t.to(dtype))
    outputs = as_tuple(getattr(reference(stem), f"{stem}_fwd")(*mapped(args, lambda t: t.double())))
    return args, tuple(g.to(dtype) for g in cotangents(outputs))


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


# What TF32 does to a product shows on a card alone.
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
    "conv2d": ((1, 70, 9, 11), (74, 35, 3, 2), _STRIDED),
    "conv1d": ((1, 5, 79), (37, 5, 4), ((3,), (2,), (1,), 1)),
}
every_power_shape = pytest.mark.parametrize("name", POWER_SHAPES)


def power(name: str, device: str, iterations: int) -> tuple[Any, ...]:
    """Of positive numbers: where they cancel, a long chain of products may be off by more than what it gives."""
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


# ---- that the tolerances can fail, in plain torch --------------------------------------------------------------------

every_precision = pytest.mark.parametrize("precision", PRECISIONS)


def products(stem: str, args: tuple[Any, ...]) -> set[str]:
    """The names of what the kernels multiply in the precision asked for."""
    outputs, gradients = sums(stem, args)
    names = [f"output {i}" for i in range(len(outputs))]
    names += [f"gradient of {name}" for name in gradient_names(stem, args)]
    return {name for name, found in zip(names, (*outputs, *gradients)) if found.kind == "kernel"}


def in_float64(stem: str, args: tuple[Any, ...], grads: Any, change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Outputs and gradients by the formulas of the reference, on operands that were changed."""
    args, grads = (mapped(values, lambda t: change(t).double()) for values in (args, grads))
    outputs = as_tuple(getattr(reference(stem), f"{stem}_fwd")(*args))
    names = gradient_names(stem, args)
    found = backward(reference(stem), stem, grads, args, tuple(True for _ in names))
    result = {f"output {i}": o for i, o in enumerate(outputs)}
    return result | {f"gradient of {name}": g for name, g in zip(names, found)}


def cut_to_tf32(t: Tensor) -> Tensor:
    return (t.float().view(torch.int32) & -(1 << 13)).view(torch.float32)


def rounded_to_tf32(t: Tensor) -> Tensor:
    bits = t.float().view(torch.int32)
    return cut_to_tf32((bits + ((1 << 12) - 1) + ((bits >> 13) & 1)).view(torch.float32))


TO_TF32 = {"cut": cut_to_tf32, "rounded": rounded_to_tf32}


def test_tf32_has_ten_digits() -> None:
    step = 2.0**-10
    x = torch.tensor([1 + step, 1 + 0.6 * step, -1 - 0.6 * step, 1 + 0.4 * step, 1 + 0.5 * step, 1 + 1.5 * step])
    assert cut_to_tf32(x).tolist() == [1 + step, 1, -1, 1, 1, 1 + step]
    assert rounded_to_tf32(x).tolist() == [1 + step, 1 + step, -1 - step, 1, 1, 1 + 2 * step]


@every_stem
@every_precision
@pytest.mark.parametrize("name", ["narrow", "wide"])
def test_what_is_right_is_within_the_bound(stem: str, name: str, precision: str) -> None:
    """Torch's float32, in another order, rounded to half precision once; operands of TF32, cut off and rounded."""
    args, grads = prepared(stem, large(stem, name), PRECISIONS[precision])
    wanted = expected(stem, args, grads, precision)
    for change in TO_TF32.values() if precision == "tf32" else ():
        found = in_float64(stem, args, grads, change)
        assert not wanted.beyond({key: found[key] for key in products(stem, args)})
    names = gradient_names(stem, args)
    outputs, gradients = through_op(stem, "reference", mapped(args, Tensor.float), names, mapped(grads, Tensor.float))
    labels = [*(f"output {i}" for i in range(len(outputs))), *(f"gradient of {name}" for name in names)]
    found = dict(zip(labels, (*outputs, *gradients)))
    assert not wanted.beyond({key: value.to(PRECISIONS[precision]) for key, value in found.items()})


@every_stem
@pytest.mark.parametrize("way", TO_TF32)
@pytest.mark.parametrize("precision", ["ieee", "tf32x3"])
def test_tf32_operands_break_the_finer_bounds(stem: str, way: str, precision: str) -> None:
    """In three passes that is what is left without the low parts. It shows in every output and gradient."""
    args, grads = prepared(stem, large(stem, "narrow"), torch.float32)
    found = in_float64(stem, args, grads, TO_TF32[way])
    assert products(stem, args) <= expected(stem, args, grads, precision).beyond(found).keys()


@pytest.mark.parametrize("way", TO_TF32)
def test_what_three_passes_leave_out_of_a_product(way: str) -> None:
    """By numbers of which every digit counts. A pass less, either one, leaves out a thousand times as much."""
    high = TO_TF32[way]
    a, b = (1 + torch.rand(100_000) for _ in range(2))
    (a1, a2), (b1, b2) = ((high(x).double(), high(x - high(x)).double()) for x in (a, b))
    exact = a.double() * b.double()
    share = [((exact - kept) / exact).abs().max().item() for kept in (a1 * b1 + a1 * b2 + a2 * b1, a1 * b1 + a1 * b2)]
    assert share[0] <= OPERANDS["tf32x3"] < 100 * share[0] and share[1] > 100 * OPERANDS["tf32x3"]
    lost = ((exact - a1 * b1) / exact).abs().max().item()
    assert lost <= OPERANDS["tf32"] < 3 * lost


def forgotten(stem: str, args: tuple[Any, ...], grads: Any, what: str) -> dict[str, Tensor]:
    """What the formulas give that forget something, for the outputs and gradients in which it counts."""
    args, grads = mapped(args, lambda t: t.double()), mapped(grads, lambda t: t.double())
    code, names = reference(stem), gradient_names(stem, args)

    def gradient(of: str, *grads: Tensor | None, args: tuple[Any, ...] = args) -> Any:
        return dict(zip(names, backward(code, stem, grads, args, tuple(True for _ in names))))[of]

    if what == "bias":  # in the gradient of rows
        return {"gradient of rows": gradient("rows", grads[0], None)}
    radius, weight, _, *geometry = args[1:]
    alone = (radius[None], radius, weight, None, *geometry)  # the radius as a center
    if what == "abs":  # of W
        wide = getattr(code, f"{stem}_fwd")(*alone)[0][0]
        return {"output 1": wide, "gradient of radius": gradient("stack", grads[1][None], None, args=alone)[0]}
    streams = [grads[0], grads[1]]
    if what in ("nominal", "center"):
        streams[0] = grads[0].clone()
        streams[0][("nominal", "center").index(what)] = 0
        return {"gradient of weight": gradient("weight", *streams)}
    signed = {"radius": 0.0, "sign": 1.0, "sign of zero": torch.where(weight == 0, 1, weight.sign())}[what]
    product = gradient("weight", grads[1][None], None, args=alone)
    return {"gradient of weight": gradient("weight", grads[0], None) + signed * product}


OF_INTERVALS = ("abs", "sign", "sign of zero", "nominal", "center", "radius")
FORGOTTEN = [(stem, what) for stem in STEMS[:2] for what in OF_INTERVALS]
FORGOTTEN += [(stem, "bias") for stem in STEMS[2:]]


@pytest.mark.parametrize("stem, what", FORGOTTEN)
@pytest.mark.parametrize("name", ["narrow", "wide"])
@every_precision
def test_what_is_forgotten_breaks_every_bound(stem: str, what: str, name: str, precision: str) -> None:
    args, grads = prepared(stem, large(stem, name), PRECISIONS[precision])
    found = forgotten(stem, args, grads, what)
    found = {key: value.to(PRECISIONS[precision]) for key, value in found.items()}
    assert expected(stem, args, grads, precision).beyond(found).keys() == found.keys()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_sums_in_half_precision_break_its_bound(precision: str) -> None:
    """Rounded behind every group of 16 products, as tensor cores can add them up too."""
    dtype = PRECISIONS[precision]
    args, grads = prepared("interval_linear", large("interval_linear", "narrow"), dtype)
    stack, radius, weight, bias = mapped(args, lambda t: t.double())
    found = []
    for x, w in ((stack, weight), (radius, weight.abs())):
        total = torch.zeros(*x.shape[:-1], w.shape[0], dtype=torch.float64)
        for start in range(0, x.shape[-1], 16):
            total = (total + x[..., start : start + 16] @ w[:, start : start + 16].T).to(dtype).double()
        found.append(total)
    rounded = {"output 0": (found[0] + bias).to(dtype), "output 1": found[1].to(dtype)}
    assert expected("interval_linear", args, grads, precision).beyond(rounded).keys() == rounded.keys()


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_sums_that_cut_off_are_within_the_bound(precision: str) -> None:
    """A tensor core without a digit to spare: 8 products and the sum so far, cut off behind 24 digits of the largest.

    Sums of one sign, as those of radii, then lose at every step.
    """
    args, grads = prepared("interval_linear", large("interval_linear", "narrow"), PRECISIONS[precision])
    operands = mapped(args, cut_to_tf32 if precision == "tf32" else torch.clone)
    stack, radius, weight, bias = mapped(operands, lambda t: t.double())
    found = []
    for x, w in ((stack, weight), (radius, weight.abs())):
        total = torch.zeros(*x.shape[:-1], w.shape[0], 1, dtype=torch.float64)
        for start in range(0, x.shape[-1], 8):
            group = x[..., None, start : start + 8] * w[:, start : start + 8]
            terms = torch.cat([group, total], -1)
            step = torch.exp2(terms.abs().amax(-1, keepdim=True).clamp(min=1e-30).log2().floor() - 23)
            total = ((terms / step).trunc() * step).sum(-1, keepdim=True)
            step = torch.exp2(total.abs().clamp(min=1e-30).log2().floor() - 23)
            total = (total / step).trunc() * step
        found.append(total.squeeze(-1))
    values = {"output 0": found[0] + bias, "output 1": found[1]}
    wanted = expected("interval_linear", args, grads, precision)
    assert not wanted.beyond({name: value.to(PRECISIONS[precision]) for name, value in values.items()})
    lost = (found[1] - operands[1].double() @ weight.abs().T).abs() / (radius @ weight.abs().T)
    assert lost.max() > gamma(4, torch.float32), "nothing was cut off"
