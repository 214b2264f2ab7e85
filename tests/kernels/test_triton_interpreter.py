"""The Triton kernels on CPU, in Triton's interpreter: run with TRITON_INTERPRET=1, in a process of their own.

The variable counts when Triton decorates a kernel, so one process cannot both interpret and compile. The interpreter
ignores TF32 (`test_triton_compiled.py` reads that from the binaries) and takes milliseconds for a program, whatever its
tile: its tile is large (32 x 64 x 32), the samples of the references end inside one, and the shapes here cross it on
every side. Its results in float32 are compared with the float64 reference within the rounding bound.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from contract import (
    as_tuple,
    assert_within,
    cotangents,
    expected_gradients,
    expected_outputs,
    fenced,
    fenced_rows,
    forward_names,
    gamma,
    gradient_names,
    is_real,
    mapped,
    reference,
    rounding,
    rounding_bwd,
    sample,
    through_op,
)
from torch import Tensor, nn
from triton_sums import COPIED, aligned_between_nan

import fastbound as fb
from fastbound.errors import BackendError

pytest.importorskip("triton", reason="Triton is not installed: its kernels were NOT interpreted")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1; make test runs it in a process of its own", allow_module_level=True)

from fastbound.kernels import _configurations, _convolution, three_pass_tf32

STEMS = ("interval_linear", "interval_conv2d", "crown_linear", "crown_conv2d")
SAMPLES = [
    pytest.param(stem, index, id=f"{stem}-{name.replace(' ', '_')}")
    for stem in STEMS
    for index, (name, _) in enumerate(
        reference(stem).samples(torch.float32, torch.device("cpu"), torch.Generator().manual_seed(7))
    )
]


def normal(*shape: int) -> Tensor:
    out = torch.randn(shape, dtype=torch.float64)
    out[torch.rand(shape) < 0.1] = 0
    return out.float()


def large(stem: str) -> tuple[Any, ...]:
    """Shapes that cross the interpreter's tile, and a weight gradient's part of 100 pixels, and end inside of both."""
    torch.manual_seed(3)
    if stem == "interval_linear":
        return normal(2, 131, 75), normal(131, 75).abs(), normal(37, 75), normal(37)
    if stem == "crown_linear":
        return normal(2, 3, 23, 75), normal(75, 37), normal(75)
    geometry = ((2, 1), (1, 0), (1, 2))
    if stem == "interval_conv2d":
        return normal(2, 3, 70, 9, 9), normal(3, 70, 9, 9).abs(), normal(74, 35, 3, 2), normal(74), *geometry, 2
    return normal(1, 3, 74, 5, 7), normal(74, 35, 3, 2), normal(74), (9, 9), *geometry, 2


def assert_agrees(stem: str, args: tuple[Any, ...], layout: Callable[[Tensor], Tensor]) -> None:
    """Outputs and all gradients of the public function, through its autograd Function, on inputs between NaN."""
    names = [n for n in gradient_names(stem, args) if dict(zip(forward_names(stem), args))[n] is not None]
    grads = cotangents(as_tuple(getattr(reference(stem), f"{stem}_fwd")(*args)))
    outputs, found = through_op(stem, "triton", mapped(args, layout), names, mapped(grads, layout))
    assert_within(outputs, expected_outputs(stem, args), *rounding(stem, args), torch.float32, "output")
    terms, magnitudes = rounding_bwd(stem, grads, args)
    chosen = [m for n, m in zip(gradient_names(stem, args), magnitudes) if n in names]
    assert_within(found, expected_gradients(stem, grads, args, names), terms, chosen, torch.float32, "gradient")


@pytest.mark.parametrize("stem, index", SAMPLES)
def test_samples_of_the_reference(stem: str, index: int) -> None:
    assert_agrees(stem, sample(stem, index, torch.float32), fenced_rows)


@pytest.mark.filterwarnings(f"ignore:{COPIED}")
@pytest.mark.parametrize("stem", STEMS)
def test_shapes_that_cross_the_tile(stem: str) -> None:
    assert_agrees(stem, large(stem), lambda t: t)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("stem", STEMS)
def test_nothing_outside_a_tensor_is_read(stem: str) -> None:
    args = large(stem)
    for tensor in args:
        if is_real(tensor):
            assert torch.equal(aligned_between_nan(tensor), tensor) and aligned_between_nan(tensor).data_ptr() % 16 == 0
    assert_agrees(stem, args, aligned_between_nan)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("some", [(0,), (1,)], ids=["first output alone", "second output alone"])
def test_gradients_from_one_output(stem: str, some: tuple[int, ...]) -> None:
    args = sample(stem, 0, torch.float32)
    names = gradient_names(stem, args)
    grads = cotangents(as_tuple(getattr(reference(stem), f"{stem}_fwd")(*args)))
    terms, magnitudes = rounding_bwd(stem, grads, args)
    grads = tuple(g if i in some else None for i, g in enumerate(grads))
    _, found = through_op(stem, "triton", args, names, grads)
    expected = expected_gradients(stem, grads, args, names)
    assert_within(found, expected, terms, magnitudes, torch.float32, "gradient")


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_half_precision_sums_in_float32(stem: str, dtype: torch.dtype) -> None:
    """Inputs are exact; an output is a float32 sum of exact products, rounded once (the interpreter truncates it)."""
    args = mapped(sample(stem, 1, torch.float32), lambda t: t.to(dtype))
    names = [n for n in gradient_names(stem, args) if dict(zip(forward_names(stem), args))[n] is not None]
    like = as_tuple(getattr(reference(stem), f"{stem}_fwd")(*mapped(args, lambda t: t.double())))
    grads = mapped(cotangents(like), lambda g: g.to(dtype))
    outputs, found = through_op(stem, "triton", args, names, grads)
    terms, magnitudes = rounding_bwd(stem, grads, args)
    chosen = [m for n, m in zip(gradient_names(stem, args), magnitudes) if n in names]
    expected = (*expected_outputs(stem, args), *expected_gradients(stem, grads, args, names))
    bounds = [(rounding(stem, args)[0], m) for m in rounding(stem, args)[1]] + [(terms, m) for m in chosen]
    for actual, wanted, (count, magnitude) in zip((*outputs, *found), expected, bounds):
        assert actual.dtype == dtype
        error = (actual.double() - wanted).abs()
        allowed = gamma(count, torch.float32) * magnitude.abs() + torch.finfo(dtype).eps * wanted.abs() + 1e-7
        assert (error <= allowed).all(), f"off by {(error - allowed).max():.3g} more than one rounding to {dtype}"


# ---- whole networks --------------------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(27, 7), nn.ReLU()),
        nn.Linear(7, 4),
    )


@pytest.mark.parametrize("method", ["ibp", "crown-ibp"])
def test_a_training_step_on_triton_and_on_the_reference(method: str) -> None:
    x, labels = torch.rand(2, 1, 6, 6), torch.tensor([1, 3])
    found = []
    for request in ("triton", "reference"):
        model = network()
        with fb.use_backend(request, only=STEMS):
            out = model(fb.linf_box(x, 0.1, 0.0, 1.0))
            margins = fb.bound(out, method=method, spec=fb.margin_spec(labels, 4))
            fb.losses.robust_cross_entropy(margins).backward()
        found.append((margins.lower, *(p.grad for p in model.parameters())))
    for triton, plain in zip(*found):
        assert plain.abs().max() > 0
        torch.testing.assert_close(triton, plain, rtol=1e-5, atol=1e-6)


def test_a_request_for_every_primitive_names_what_is_missing() -> None:
    with fb.use_backend("triton"), pytest.raises(BackendError, match="'triton' cannot serve interval_norm_relu"):
        network()(fb.linf_box(torch.rand(1, 1, 6, 6), 0.1))


# ---- precision -------------------------------------------------------------------------------------------------------


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The PRECISION of every launch from here on."""
    seen: list[str] = []

    class Recorder:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: Any) -> Callable[..., Any]:
            def launch(*args: Any, **constants: Any) -> Any:
                seen.append(constants["PRECISION"])
                return self.kernel[grid](*args, **constants)

            return launch

    for name in ("product_kernel", "weight_gradient_kernel"):
        monkeypatch.setattr(_convolution, name, Recorder(getattr(_convolution, name)))
    yield seen


def test_certification_is_ieee_with_every_flag_on(requested: list[str], allow_tf32: Callable[..., None]) -> None:
    torch.backends.fp32_precision = "tf32"
    allow_tf32(convolutions=True, products=True)
    x, labels = torch.rand(2, 1, 6, 6), torch.tensor([1, 3])
    with fb.use_backend("triton", only=STEMS):
        network()(fb.linf_box(x, 0.1)).lower.sum().backward()
        assert requested and set(requested) == {"tf32"}, "training takes the flags"
        with three_pass_tf32():
            requested.clear()
            network()(fb.linf_box(x, 0.1)).lower.sum().backward()
            assert requested and set(requested) == {"tf32x3"}
        requested.clear()
        for method in ("ibp", "crown-ibp"):
            with three_pass_tf32(), torch.autocast("cpu"):
                fb.certify(network(), [(x, labels)], 0.1, method=method)
    assert requested and set(requested) == {"ieee"}


# ---- wrong arguments -------------------------------------------------------------------------------------------------


def test_groups_that_do_not_divide_the_outputs() -> None:
    stack, weight = normal(2, 1, 4, 5, 5), normal(3, 2, 3, 3)
    with fb.use_backend("triton"):
        with pytest.raises(
            ValueError, match=r"interval_conv2d: groups: wanted a number that divides the 3 outputs .* got 2"
        ):
            fb.ops.interval_conv2d(stack, stack[0].abs(), weight, groups=2)
        with pytest.raises(
            ValueError, match=r"crown_conv2d: groups: wanted a number that divides the 3 outputs .* got 2"
        ):
            fb.ops.crown_conv2d(normal(1, 1, 3, 3, 3), weight, None, (5, 5), groups=2)


def test_a_stack_of_three_streams() -> None:
    wanted = r"stack: wanted \[N, 2, 4\] for this radius, N = 1 \(center\) or 2 .* got \(3, 2, 4\)"
    with fb.use_backend("triton"), pytest.raises(ValueError, match=wanted):
        fb.ops.interval_linear(normal(3, 2, 4), normal(2, 4).abs(), normal(5, 4))


def test_an_unaligned_tensor_is_copied_and_says_so() -> None:
    stack, radius, weight = normal(2, 3, 5), normal(3, 5).abs(), normal(4, 5)
    with fb.use_backend("triton"):
        expected = fb.ops.interval_linear(stack, radius, weight)
        with pytest.warns(RuntimeWarning, match=r"\(4, 1, 1, 5\) starts at an address .* multiple of 16 bytes"):
            found = fb.ops.interval_linear(stack, radius, fenced(weight))
    for a, b in zip(found, expected):
        assert torch.equal(a, b)


def test_a_card_without_a_table_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_convolution, "card_of", lambda device, interpreted: "sm_75")
    with fb.use_backend("triton"), pytest.raises(BackendError, match=r"interval_product/ieee/narrow on sm_75"):
        fb.ops.interval_linear(normal(2, 3, 5), normal(3, 5).abs(), normal(4, 5))


@pytest.mark.parametrize("kernel", [name for name in _configurations.KERNELS if not name.startswith("power")])
def test_a_tile_of_the_card_runs_in_the_interpreter(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One kernel after the other in the shipped tile, the others in the interpreter's."""
    own = _configurations.configuration

    def chosen(card: str, name: str, precision: str, features: int) -> _configurations.Configuration:
        return own("sm_90" if name == kernel else card, name, "tf32" if name == kernel else precision, features)

    monkeypatch.setattr(_convolution, "configuration", chosen)
    for stem in STEMS:
        if stem.startswith("interval") == kernel.startswith("interval"):
            assert_agrees(stem, sample(stem, 1, torch.float32), lambda t: t)
