"""Matrix products on CPU: oneDNN's are the same numbers up to rounding, and are used only if nothing records them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fastbound as fb
from fastbound.certify.modes import ieee_float32
from fastbound.native import product
from fastbound.native.layout import as_convolved

has_onednn = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")),
    reason="this torch has no oneDNN product",
)


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """oneDNN whatever the processor and the size; the shapes of the products that it computed."""
    served: list[tuple[int, ...]] = []
    prefers = product._prefers_onednn

    def recorded(x: Tensor, weight: Tensor) -> bool:
        chosen = prefers(x, weight)
        if chosen:
            served.append((*x.shape, weight.shape[0]))
        return chosen

    monkeypatch.setattr(product, "_onednn_is_faster", lambda: True)
    monkeypatch.setattr(product, "_prefers_onednn", recorded)
    monkeypatch.setattr(product, "LEAST", 1)
    return served


def assert_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    """Within gamma(I + 2) of the float64 product, for any order of its sum."""
    unit = torch.finfo(x.dtype).eps / 2
    terms = x.shape[-1] + 2
    wide = None if bias is None else bias.double()
    exact = F.linear(x.double(), weight.double(), wide)
    size = F.linear(x.double().abs(), weight.double().abs(), None if wide is None else wide.abs())
    found = product.linear(x, weight, bias)
    assert found.dtype == x.dtype and found.shape == exact.shape
    assert ((found.double() - exact).abs() <= terms * unit / (1 - terms * unit) * size).all()


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "dense": lambda t: t.contiguous(),
    "transposed": lambda t: t.t().contiguous().t(),
    "every second column": lambda t: t.repeat_interleave(2, 1)[:, ::2],
    "part of a row": lambda t: torch.cat((t, t), 1)[:, : t.shape[1]],
    "one row": lambda t: t[:1].expand_as(t),
}


@has_onednn
@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
def test_any_strides(onednn: list[tuple[int, ...]], first: str, second: str) -> None:
    generator = torch.Generator().manual_seed(3)
    x, weight = torch.randn(33, 70, generator=generator), torch.randn(19, 70, generator=generator)
    assert_product(LAYOUTS[first](x), LAYOUTS[second](weight))
    assert_product(LAYOUTS[first](x), LAYOUTS[second](weight), torch.randn(19, generator=generator))
    assert onednn == [(33, 70, 19)] * 2


@has_onednn
@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (2, 3, 4)])
def test_any_batch(onednn: list[tuple[int, ...]], batch: tuple[int, ...]) -> None:
    assert_product(torch.randn(*batch, 17), torch.randn(6, 17))
    assert len(onednn) == 1


@has_onednn
def test_empty_and_double_are_torchs(onednn: list[tuple[int, ...]]) -> None:
    assert product.linear(torch.randn(0, 4), torch.randn(3, 4)).shape == (0, 3)
    assert product.linear(torch.randn(2, 4), torch.randn(0, 4)).shape == (2, 0)
    assert product.linear(torch.randn(2, 0), torch.randn(3, 0)).shape == (2, 3)
    assert_product(torch.randn(5, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64))
    assert onednn == []


@has_onednn
@pytest.mark.parametrize(
    ("dtype", "precision", "wanted"),
    [
        (torch.float32, "tf32", torch.channels_last),
        (torch.float32, "ieee", torch.contiguous_format),
        (torch.float64, "tf32", torch.contiguous_format),
        (torch.bfloat16, "ieee", torch.channels_last),
        (torch.float16, "ieee", torch.channels_last),
    ],
)
def test_maps_go_to_tensor_cores_channels_last(dtype: torch.dtype, precision: str, wanted: torch.memory_format) -> None:
    x = torch.empty(2, 5, 4, 3, dtype=dtype, device="meta")
    before = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = precision
    try:
        assert as_convolved(x, (1, 1)).is_contiguous(memory_format=wanted)
        assert as_convolved(torch.ones(2, 5, 4, 3, dtype=dtype), (1, 1)).is_contiguous(
            memory_format=torch.channels_last
        )
    finally:
        torch.backends.cudnn.conv.fp32_precision = before


def test_what_autograd_records_is_torchs(onednn: list[tuple[int, ...]]) -> None:
    x, weight = torch.randn(5, 4), torch.randn(3, 4, requires_grad=True)
    product.linear(x, weight).sum().backward()
    assert weight.grad is not None and torch.allclose(weight.grad, x.sum(0).expand(3, 4), rtol=1e-5)
    assert onednn == []
    with torch.no_grad():
        product.linear(x, weight)
    assert len(onednn) == 1


@has_onednn
def test_certification_is_ieee_whatever_the_flags(onednn: list[tuple[int, ...]]) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with ieee_float32():
            assert_product(torch.randn(40, 300), torch.randn(20, 300))
    finally:
        torch.set_float32_matmul_precision(before)
    assert len(onednn) == 1


@has_onednn
def test_bounds_and_gradients_of_a_network_are_the_same(
    onednn: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.ReLU(), torch.nn.Linear(30, 10))
    x, labels = torch.rand(16, 40), torch.randint(10, (16,))

    def step() -> list[Tensor]:
        model.zero_grad()
        out = model(fb.linf_box(x, 0.1, 0.0, 1.0))
        margins = fb.bound(out, method="crown-ibp", spec=fb.margin_spec(labels, 10))
        (fb.losses.robust_cross_entropy(margins) + F.cross_entropy(out.nominal, labels)).backward()
        return [margins.lower, *(p.grad.clone() for p in model.parameters())]  # type: ignore[union-attr]

    by_onednn = step()
    assert len(onednn) > 10
    monkeypatch.setattr(product, "_onednn_is_faster", lambda: False)
    for found, expected in zip(by_onednn, step()):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
