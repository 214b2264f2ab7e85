"""The layout in memory changes no value: every layout, strides of 0, and maps stored in bfloat16."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import test_contract
import torch
from contract import (
    LAYOUTS,
    SAMPLES,
    STORED,
    as_tuple,
    assert_within,
    available,
    cotangents,
    every_device,
    every_differentiable_sample,
    every_sample,
    expected_gradients,
    expected_outputs,
    forward_names,
    gradient_names,
    is_real,
    mapped,
    output_dtypes,
    reference,
    rounding,
    rounding_bwd,
    sample,
    through_op,
)
from torch import Tensor

import fastbound as fb


def test_which_primitives_read_maps_in_bfloat16_on_cpu() -> None:
    assert STORED == ["interval_norm_relu", "interval_norm_relu_moments", "singleprop_norm_relu"]


@pytest.mark.parametrize("stem, index", [p for p in SAMPLES if p.values[0] in STORED])
def test_maps_in_bfloat16_on_cpu(stem: str, index: int) -> None:
    test_contract.test_forward(stem, index, "cpu", torch.bfloat16)
    test_contract.test_explicit_backward(stem, index, "cpu", torch.bfloat16)
    for layout in LAYOUTS:
        test_memory_layout_changes_nothing(stem, index, layout, "cpu", torch.bfloat16)


@every_sample
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "device, dtype",
    [
        pytest.param("cpu", torch.float32, id="cpu-float32"),
        pytest.param("cuda", torch.float32, id="cuda-float32", marks=pytest.mark.gpu),
        pytest.param("cuda", torch.bfloat16, id="cuda-bfloat16", marks=pytest.mark.gpu),
    ],
)
def test_memory_layout_changes_nothing(
    stem: str, index: int, layout: Callable[[Tensor], Tensor], device: str, dtype: torch.dtype
) -> None:
    args = sample(stem, index, dtype, device)
    moved = mapped(args, layout)
    assert all(torch.equal(a, m) for a, m in zip(args, moved) if is_real(a))
    names = gradient_names(stem, args)
    present = [n for n in names if dict(zip(forward_names(stem), args))[n] is not None]
    grads = cotangents(as_tuple(getattr(reference(stem), f"{stem}_fwd")(*args)))
    terms, magnitudes = rounding_bwd(stem, grads, args)
    chosen = [m for n, m in zip(names, magnitudes) if n in present]
    expected, dtypes = expected_gradients(stem, grads, args, present), output_dtypes(stem, args)
    for backend in available(stem, device, dtype):
        for some in (moved, (moved[0], *args[1:]), (args[0], *moved[1:])):
            outputs, found = through_op(stem, backend, some, present, mapped(grads, layout))
            assert_within(outputs, expected_outputs(stem, args), *rounding(stem, args), dtypes, f"{backend}, output")
            assert_within(found, expected, terms, chosen, dtype, f"{backend}, gradient")


@every_sample
@every_device
def test_expanded_inputs_and_gradients(stem: str, index: int, device: str) -> None:
    """Strides of 0: one eps for a whole box, and the gradient of a sum."""
    dtype = torch.float32
    args = sample(stem, index, dtype, device)
    names = gradient_names(stem, args)
    first = forward_names(stem).index("radius") if "radius" in forward_names(stem) else 0
    if not args[first].numel():
        pytest.skip("empty")
    flat = args[first].flatten()[0]
    dense = tuple(flat.expand_as(a).clone() if i == first else a for i, a in enumerate(args))
    wide = tuple(flat.expand_as(a) if i == first else a for i, a in enumerate(args))
    present = [n for n in names if dict(zip(forward_names(stem), args))[n] is not None]
    outputs = as_tuple(getattr(reference(stem), f"{stem}_fwd")(*dense))
    grads = tuple(o if o is None else torch.ones_like(o) for o in outputs)
    terms, magnitudes = rounding_bwd(stem, grads, dense)
    chosen = [m for n, m in zip(names, magnitudes) if n in present]
    expected = expected_gradients(stem, grads, dense, present)
    ones = mapped(grads, lambda g: torch.ones((), dtype=dtype, device=device).expand_as(g))
    for backend in available(stem, device, dtype):
        outputs, found = through_op(stem, backend, wide, present, ones)
        assert_within(outputs, expected_outputs(stem, dense), *rounding(stem, dense), dtype, f"{backend}, output")
        assert_within(found, expected, terms, chosen, dtype, f"{backend}, gradient")


@every_differentiable_sample
def test_lazily_negated_gradients(stem: str, index: int) -> None:
    """Memory holds the negated numbers, without a sign: whoever reads it directly must resolve them first."""
    args = sample(stem, index, torch.float64)
    names = [n for n in gradient_names(stem, args) if dict(zip(forward_names(stem), args))[n] is not None]
    grads = cotangents(as_tuple(getattr(reference(stem), f"{stem}_fwd")(*args)))
    negated = [None if g is None else torch._neg_view(-g) for g in grads]
    assert any(g is not None and g.is_neg() for g in negated)
    for backend in available(stem, "cpu", torch.float64):
        _, wanted = through_op(stem, backend, args, names, grads)
        for found, gradient in zip(through_op(stem, backend, args, names, negated)[1], wanted):
            assert found is gradient is None or torch.equal(found, gradient)


def test_more_dimensions_than_anyone_draws() -> None:
    radius = torch.rand((2,) * 17)
    center, width = fb.ops.interval_norm_relu(radius.unsqueeze(0), radius)
    assert torch.equal(center[0], radius) and torch.equal(width, radius)  # [0, 2 r] passes a ReLU unchanged
