"""The CUDA kernels, compiled for the processor, in the primitives that they serve.

The contract suite and `test_native_*` run on them unchanged: values, gradients, memory layouts, fences of NaN, all
four storage types. Everything that only a GPU can show is left to the tests marked ``gpu``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

import contract
import pytest
import test_contract
import test_layouts
import torch
from conftest import ROOT
from cuda_on_cpu.build import load
from native_calls import run
from torch import Tensor

from fastbound import backends, native

pytestmark = pytest.mark.cuda_on_cpu

STEMS = sorted({p.stem for p in (ROOT / "csrc/cuda").glob("*.cu")} & set(contract.STEMS))
every_sample = pytest.mark.parametrize("stem, index", [p for p in contract.SAMPLES if p.values[0] in STEMS])


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors of the processor go where CUDA tensors would go."""
    module = load()
    for stem in (*STEMS, "signed_weight_grad"):
        monkeypatch.setattr(importlib.import_module(f"fastbound.native.{stem}"), "_C", module)
    for stem in STEMS:
        serving = importlib.import_module(f"fastbound.native.{stem}")
        monkeypatch.setattr(serving, "unsupported", lambda device_type, dtype: None)
    backends._select.cache_clear()
    yield
    backends._select.cache_clear()


@every_sample
@pytest.mark.parametrize("dtype", native.DTYPES, ids=str)
def test_values_and_gradients(kernels: None, stem: str, index: int, dtype: torch.dtype) -> None:
    assert "native" in contract.available(stem, "cpu", dtype)
    test_contract.test_forward(stem, index, "cpu", dtype)
    test_contract.test_explicit_backward(stem, index, "cpu", dtype)


@every_sample
@pytest.mark.parametrize("layout", contract.LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_memory_layouts(
    kernels: None, stem: str, index: int, layout: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    test_layouts.test_memory_layout_changes_nothing(stem, index, layout, "cpu", dtype)


@every_sample
def test_gradients_of_some_inputs_from_some_outputs(kernels: None, stem: str, index: int) -> None:
    test_contract.test_gradients_of_some_inputs_from_some_outputs(stem, index, "cpu")


@pytest.mark.parametrize(
    "stem, index", [p for p in contract.SAMPLES if p.values[0] in ("interval_linear", "interval_conv2d")]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_of_products(kernels: None, stem: str, index: int, dtype: torch.dtype) -> None:
    """The library's products, and the sign of the weights by the CUDA pass."""
    test_contract.test_explicit_backward(stem, index, "cpu", dtype)


@pytest.mark.parametrize("dtype", native.HALVES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_statistics_of_half_precision_are_single(kernels: None, dtype: torch.dtype, channels_last: bool) -> None:
    x = (100 + torch.randn(4, 12, 6, 5)).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    mean, var = backends.find("interval_norm_relu", x).interval_norm_relu_statistics(x)
    exact_var, exact_mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    assert mean.dtype == var.dtype == torch.float32
    torch.testing.assert_close(mean.double(), exact_mean, rtol=torch.finfo(torch.float32).eps, atol=0)
    torch.testing.assert_close(var.double(), exact_var, rtol=2 * torch.finfo(torch.float32).eps, atol=0)


@pytest.mark.parametrize("dtype", native.HALVES, ids=str)
@pytest.mark.parametrize("n", [1, 7, 8, 1000, 4099])
@pytest.mark.parametrize("width", [64, 33], ids=["aligned", "misaligned"])
def test_weight_gradients_of_half_precision_add_up_to_single(dtype: torch.dtype, n: int, width: int) -> None:
    grad, grad_abs, weight = torch.randn(3, n).to(dtype)
    weight[::3] = 0
    (out,) = run("signed_weight_grad", n, grad, grad_abs, weight, width=width, module=load())
    assert torch.equal(out, grad.float() + weight.sign().float() * grad_abs.float())
