"""The promises of every primitive, forward and backward on every backend, checked against the float64 reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contract import (
    as_tuple,
    assert_within,
    available,
    backward,
    cotangents,
    differentiable,
    every_device,
    every_differentiable_sample,
    every_dtype,
    every_place,
    every_sample,
    every_stem,
    expected_gradients,
    expected_outputs,
    forward_names,
    gradient_names,
    is_real,
    mapped,
    operator,
    output_dtypes,
    reference,
    rounding,
    rounding_bwd,
    sample,
    through_op,
)
from torch import Tensor

import fastbound as fb
from fastbound import backends


@every_sample
@every_place
def test_forward(stem: str, index: int, device: str, dtype: torch.dtype) -> None:
    torch.set_num_threads(2)
    args = sample(stem, index, dtype, device)
    expected = expected_outputs(stem, args)
    for backend in available(stem, device, dtype):
        code, _ = backends._load(backend, stem, device, dtype)
        before = mapped(args, Tensor.clone)
        outputs = as_tuple(getattr(code, f"{stem}_fwd")(*args))
        assert_within(outputs, expected, *rounding(stem, args), output_dtypes(stem, args), f"{backend}, output")
        for old, new in zip(before, args):
            assert not is_real(old) or torch.equal(old, new), f"{backend}: the forward changed an input"


@every_differentiable_sample
@every_place
def test_explicit_backward(stem: str, index: int, device: str, dtype: torch.dtype) -> None:
    torch.set_num_threads(2)
    args = sample(stem, index, dtype, device)
    names = gradient_names(stem, args)
    values = dict(zip(forward_names(stem), args))
    grads = cotangents(as_tuple(getattr(reference(stem), f"{stem}_fwd")(*args)))
    expected = expected_gradients(stem, grads, args, names)
    terms, magnitudes = rounding_bwd(stem, grads, args)
    for backend in available(stem, device, dtype):
        code, _ = backends._load(backend, stem, device, dtype)
        before = mapped((*grads, *args), Tensor.clone)
        found = backward(code, stem, grads, args, tuple(values[name] is not None for name in names))
        assert_within(found, expected, terms, magnitudes, dtype, f"{backend}, gradient")
        for old, new in zip(before, (*grads, *args)):
            assert not is_real(old) or torch.equal(old, new), f"{backend}: the backward changed an input"


@every_differentiable_sample
@every_dtype
@every_device
def test_backward_through_the_op(stem: str, index: int, dtype: torch.dtype, device: str) -> None:
    args = sample(stem, index, dtype, device)
    names = [n for n in gradient_names(stem, args) if dict(zip(forward_names(stem), args))[n] is not None]
    grads = cotangents(as_tuple(getattr(reference(stem), f"{stem}_fwd")(*args)))
    bounds = rounding_bwd(stem, grads, args)
    for backend in available(stem, device, dtype):
        outputs, found = through_op(stem, backend, args, names, grads)
        assert_within(outputs, expected_outputs(stem, args), *rounding(stem, args), dtype, f"{backend}, output")
        magnitudes = dict(zip(gradient_names(stem, args), bounds[1]))
        chosen = [magnitudes[name] for name in names]
        assert_within(
            found, expected_gradients(stem, grads, args, names), bounds[0], chosen, dtype, f"{backend}, gradient"
        )


@every_differentiable_sample
@every_device
def test_gradients_of_some_inputs_from_some_outputs(stem: str, index: int, device: str) -> None:
    """A single input asks, or a single output is used: nothing else may be needed, and the numbers stay the same."""
    dtype = torch.float32
    args = sample(stem, index, dtype, device)
    names = gradient_names(stem, args)
    present = [n for n in names if dict(zip(forward_names(stem), args))[n] is not None]
    grads = cotangents(as_tuple(getattr(reference(stem), f"{stem}_fwd")(*args)))
    terms, magnitudes = rounding_bwd(stem, grads, args)
    magnitude = dict(zip(names, magnitudes))
    partial = [(grads, [name]) for name in present]
    if sum(g is not None for g in grads) > 1:
        partial += [(tuple(g if i == j else None for i, g in enumerate(grads)), present) for j in range(len(grads))]
    for backend in available(stem, device, dtype):
        for some_grads, some_names in partial:
            _, found = through_op(stem, backend, args, some_names, some_grads)
            expected = expected_gradients(stem, some_grads, args, some_names)
            chosen = [magnitude[name] for name in some_names]
            assert_within(found, expected, terms, chosen, dtype, f"{backend}, gradient of {some_names}")


@every_differentiable_sample
def test_gradcheck(stem: str, index: int) -> None:
    """Random samples keep clear of the kinks by far more than the step, once their exact zeros are gone."""
    args = mapped(sample(stem, index, torch.float64), lambda t: torch.where(t == 0, 0.37, t))
    names = gradient_names(stem, args)
    positions = [forward_names(stem).index(name) for name in names]
    elements = sum(args[p].numel() for p in positions if args[p] is not None)
    outputs = sum(o.numel() for o in expected_outputs(stem, args) if o is not None)
    if outputs == 0 or elements * outputs > 300_000:
        pytest.skip("empty, or too large for finite differences")
    args = tuple(a.requires_grad_(i in positions) if is_real(a) else a for i, a in enumerate(args))
    for backend in available(stem, "cpu", torch.float64):

        def function(*tensors: Any) -> tuple[Tensor, ...]:
            return tuple(o for o in as_tuple(operator(stem)(*tensors)) if o is not None)

        with fb.use_backend(backend):
            assert torch.autograd.gradcheck(function, args, fast_mode=elements > 30)


@every_stem
def test_what_has_no_backward_has_no_gradient(stem: str) -> None:
    args = mapped(sample(stem, 0, torch.float32), Tensor.requires_grad_)
    assert any(o.requires_grad for o in as_tuple(operator(stem)(*args))) == differentiable(stem)
