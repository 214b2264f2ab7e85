"""Which tensors the Triton kernels serve, in which precision, and when they are chosen automatically."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import fastbound as fb
from fastbound import backends
from fastbound.certify.modes import ieee_float32
from fastbound.errors import BackendError
from fastbound.kernels import _configurations, _measurements, three_pass_tf32
from fastbound.kernels._precision import product_precision

triton = pytest.importorskip("triton", reason="Triton is not installed: its kernels were NOT compiled")

from fastbound.kernels import _support  # noqa: E402

if _support.INTERPRETED:
    pytest.skip("TRITON_INTERPRET=1 is set: a process that interprets cannot compile", allow_module_level=True)


CARD = "sm_90"


# ---- who is served ---------------------------------------------------------------------------------------------------


def test_a_cpu_tensor_is_refused_outside_the_interpreter() -> None:
    x = torch.zeros(2, 3, 4)
    with fb.use_backend("triton"), pytest.raises(BackendError, match="TRITON_INTERPRET=1"):
        fb.ops.interval_linear(x, x[0].abs(), torch.zeros(5, 4))


def test_float64_is_refused() -> None:
    x = torch.zeros(2, 3, 4, dtype=torch.float64)
    with fb.use_backend("triton"), pytest.raises(BackendError, match="float64 is not supported; use float32"):
        fb.ops.interval_linear(x, x[0].abs(), torch.zeros(5, 4, dtype=torch.float64))


def test_the_version_that_lets_registers_spill_is_refused() -> None:
    assert "Triton 3.8.1 lets registers of the kernels spill" in _support.untested("3.8.1", "2.3.5")


@pytest.mark.parametrize("version, trusted", [("3.5.1", False), ("3.6.0", True), ("3.9.0", True), ("3.10.0", False)])
def test_untested_versions_are_refused(version: str, trusted: bool) -> None:
    reason = _support.untested(version, "2.3.5")
    assert reason is None if trusted else f"Triton {version} is untested; wanted a version from 3.6 to 3.9" in reason


def test_the_old_interpreter_with_a_new_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _support.untested("3.6.0", "2.4.6") is None
    monkeypatch.setattr(_support, "INTERPRETED", True)
    assert "numpy<2.4" in _support.untested("3.6.0", "2.4.6")
    assert _support.untested("3.7.1", "2.4.6") is None


def test_absent_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'triton'", name="triton")

    monkeypatch.setattr(backends.importlib, "import_module", absent)
    assert backends._load("triton", "interval_linear", "cuda", torch.float32) == (
        None,
        "triton is not installed or not written",
    )


def test_a_card_without_a_table() -> None:
    with pytest.raises(BackendError, match=r"no configuration for rows_product/bf16/wide on sm_80 .*bench.gpu.tune"):
        _configurations.configuration("sm_80", "rows_product", "bf16", 128)


# ---- the automatic choice --------------------------------------------------------------------------------------------


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``planted({key: {stem: (triton_ms, library_ms)}})``: a card on which these rows have been measured."""

    def plant(measured: dict[str, dict[str, tuple[float, float]]]) -> None:
        rows = json.loads(json.dumps(dict(_configurations.table(CARD))))
        for key, times in measured.items():
            rows[key]["measured"] = {s: {"triton_ms": t[0], "library_ms": t[1]} for s, t in times.items()}
        (tmp_path / "sm_99.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")
        monkeypatch.setattr(_configurations, "FOLDER", tmp_path)
        _configurations.table.cache_clear()

    yield plant
    _configurations.table.cache_clear()


def convolutions(product: Any, weight_gradient: Any) -> dict[str, Any]:
    """Times of wide TF32 convolutions."""
    times = {"interval_product": product, "interval_weight_gradient": weight_gradient}
    return {f"{name}/tf32/wide": {"interval_conv2d": t} for name, t in times.items() if t is not None}


def test_nothing_is_chosen_without_a_measurement() -> None:
    for card in _configurations.cards():
        for stem in _measurements.STEMS:
            for key, row in _configurations.table(card).items():
                if row["measured"] is None:
                    _, precision, shape = key.split("/")
                    weights = [(128 if shape == "wide" else 64, *(3,) * dims) for dims in (1, 2, 3)]
                    assert not any(_measurements.measured_faster(stem, card, precision, w) for w in weights)


@pytest.mark.parametrize(
    "product, weight_gradient, faster",
    [((1.0, 2.0), (1.0, 1.5), True), ((1.0, 2.0), (3.0, 1.0), False), ((1.0, 2.0), None, False)],
)
def test_the_measured_side_is_chosen(planted: Any, product: Any, weight_gradient: Any, faster: bool) -> None:
    planted(convolutions(product, weight_gradient))
    assert _measurements.measured_faster("interval_conv2d", "sm_99", "tf32", (128, 4, 3, 3)) is faster
    assert not _measurements.measured_faster("interval_conv2d", "sm_99", "tf32", (64, 4, 3, 3))
    assert not _measurements.measured_faster("interval_conv2d", "sm_99", "ieee", (128, 4, 3, 3))
    assert not _measurements.measured_faster("interval_linear", "sm_99", "tf32", (128, 4))


def test_the_rule_reads_shape_and_precision_of_the_call(
    planted: Any, monkeypatch: pytest.MonkeyPatch, allow_tf32: Callable[..., None]
) -> None:
    planted(convolutions((1.0, 2.0), (1.0, 2.0)))
    monkeypatch.setattr(_measurements, "card_of", lambda device, interpreted: "sm_99")
    stack, radius, weight = torch.zeros(2, 1, 4, 5, 5), torch.zeros(1, 4, 5, 5), torch.zeros(128, 4, 3, 3)
    allow_tf32(convolutions=True, products=False)
    assert backends.measured_faster("interval_conv2d", radius, stack, weight, None)
    assert not backends.measured_faster("interval_conv2d", radius, stack, weight[:64], None)
    assert not backends.measured_faster("interval_conv2d", radius.double(), stack, weight, None)
    assert not backends.measured_faster("interval_norm_relu", radius, stack)
    allow_tf32(convolutions=False, products=True)
    assert not backends.measured_faster("interval_conv2d", radius, stack, weight, None)


def test_power_iterations_are_chosen_by_the_kind_of_layer(
    planted: Any, monkeypatch: pytest.MonkeyPatch, allow_tf32: Callable[..., None]
) -> None:
    """Convolutions have measured faster than the library's in IEEE float32, linear layers slower."""
    times = {"power_conv2d": (1.0, 2.0), "power_linear": (2.0, 1.0)}
    planted({f"{name}/ieee/narrow": {"lipschitz_power": pair} for name, pair in times.items()})
    monkeypatch.setattr(_measurements, "card_of", lambda device, interpreted: "sm_99")

    def faster(*shape: int) -> bool:
        return backends.measured_faster("lipschitz_power", torch.zeros(1, 4), torch.zeros(shape))

    allow_tf32(convolutions=False, products=False)
    assert faster(8, 4, 3, 3) and faster(8, 4, 3)
    assert not faster(8, 4) and not faster(8, 4, 3, 3, 3) and not faster(128, 4, 3, 3)
    allow_tf32(convolutions=True, products=False)
    assert not faster(8, 4, 3, 3), "the library's products would be TF32, with which nobody has compared"


# ---- precision -------------------------------------------------------------------------------------------------------


def test_precision_follows_the_flags_of_torch_and_the_dtype(allow_tf32: Callable[..., None]) -> None:
    allow_tf32(convolutions=True, products=False)
    assert product_precision(torch.float32, convolution=True) == "tf32"
    assert product_precision(torch.float32, convolution=False) == "ieee"
    allow_tf32(convolutions=False, products=True)
    assert product_precision(torch.float32, convolution=True) == "ieee"
    assert product_precision(torch.float32, convolution=False) == "tf32"
    assert product_precision(torch.bfloat16, convolution=True) == "bf16"
    assert product_precision(torch.float16, convolution=False) == "fp16"


def test_three_passes_replace_tf32_and_nothing_else(allow_tf32: Callable[..., None]) -> None:
    allow_tf32(convolutions=True, products=False)
    with three_pass_tf32():
        assert product_precision(torch.float32, convolution=True) == "tf32x3"
        assert product_precision(torch.float32, convolution=False) == "ieee"
        assert product_precision(torch.bfloat16, convolution=False) == "bf16"
    assert product_precision(torch.float32, convolution=True) == "tf32"


def test_three_passes_reach_the_threads_of_autograd(allow_tf32: Callable[..., None]) -> None:
    """On a GPU a backward pass runs in a thread that was there before the context was entered."""
    allow_tf32(convolutions=True, products=True)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(product_precision, torch.float32, convolution=True).result() == "tf32"
        with three_pass_tf32():
            assert pool.submit(product_precision, torch.float32, convolution=True).result() == "tf32x3"
        assert pool.submit(product_precision, torch.float32, convolution=True).result() == "tf32"


def test_certification_lifts_every_flag(allow_tf32: Callable[..., None]) -> None:
    torch.backends.fp32_precision = "tf32"
    allow_tf32(convolutions=True, products=True)
    with three_pass_tf32(), ieee_float32():
        assert product_precision(torch.float32, convolution=True) == "ieee"
        assert product_precision(torch.float32, convolution=False) == "ieee"
    assert product_precision(torch.float32, convolution=True) == "tf32"


# ---- a request for some primitives -----------------------------------------------------------------------------------


def test_a_request_may_name_the_primitives() -> None:
    x = torch.zeros(1)
    with fb.use_backend("reference"), fb.use_backend("native", only=["interval_linear"]):
        assert backends.find("interval_linear", x).__name__ == "fastbound.native.interval_linear"
        assert backends.find("interval_conv2d", x).__name__ == "fastbound.reference.interval_conv2d"
    with pytest.raises(ValueError, match=r"only: there is no primitive 'interval_linaer'; known: .*interval_linear"):
        fb.use_backend("native", only=["interval_linaer"]).__enter__()
    with pytest.raises(ValueError, match=r"only: wanted a list of primitives, got the string 'interval_linear'"):
        fb.use_backend("native", only="interval_linear").__enter__()
