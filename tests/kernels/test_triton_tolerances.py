"""The tolerances of the Triton kernels, tried in plain torch: right results are within them, wrong ones are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from contract import (
    as_tuple,
    backward,
    gamma,
    gradient_names,
    mapped,
    reference,
    through_op,
)
from torch import Tensor
from triton_sums import OPERANDS, PRECISIONS, STEMS, Expected, every_stem, expected, large, prepared, products


def test_what_is_no_number_is_beyond_every_bound() -> None:
    wanted = Expected({"output 0": torch.zeros(2)}, {"output 0": torch.full((2,), float("inf"))})
    assert not wanted.beyond({"output 0": torch.tensor([0.0, 1.0])})
    assert wanted.beyond({"output 0": torch.tensor([0.0, float("nan")])}).keys() == {"output 0"}


every_precision = pytest.mark.parametrize("precision", PRECISIONS)


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
    """Three passes without the low parts leave just these. The error shows in every output and gradient."""
    args, grads = prepared(stem, large(stem, "narrow"), torch.float32)
    found = in_float64(stem, args, grads, TO_TF32[way])
    assert products(stem, args) <= expected(stem, args, grads, precision).beyond(found).keys()


@pytest.mark.parametrize("way", TO_TF32)
def test_what_three_passes_leave_out_of_a_product(way: str) -> None:
    """On numbers that use every digit. Without either of the low passes, a thousand times as much is left out."""
    high = TO_TF32[way]
    a, b = (1 + torch.rand(100_000) for _ in range(2))
    (a1, a2), (b1, b2) = ((high(x).double(), high(x - high(x)).double()) for x in (a, b))
    exact = a.double() * b.double()
    share = [((exact - kept) / exact).abs().max().item() for kept in (a1 * b1 + a1 * b2 + a2 * b1, a1 * b1 + a1 * b2)]
    assert share[0] <= OPERANDS["tf32x3"] < 100 * share[0] and share[1] > 100 * OPERANDS["tf32x3"]
    lost = ((exact - a1 * b1) / exact).abs().max().item()
    assert lost <= OPERANDS["tf32"] < 3 * lost


def forgotten(stem: str, args: tuple[Any, ...], grads: Any, what: str) -> dict[str, Tensor]:
    """The results of formulas that forget something, for the outputs and gradients in which it counts."""
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
    """Rounded after every group of 16 products, as tensor cores can add them up too."""
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
    """A tensor core without a digit to spare: 8 products and the sum so far, cut off after 24 digits of the largest.

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
