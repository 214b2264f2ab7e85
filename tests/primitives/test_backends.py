"""The choice of code for CUDA tensors, as far as it shows without a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import fastbound as fb
from fastbound import backends, native
from fastbound.errors import BackendError
from fastbound.ops import crown_concretize, interval_margin, layout

WITH_CUDA_CODE = [
    *("crown_concretize", "crown_relu", "interval_margin"),
    *("interval_norm_relu", "interval_norm_relu_moments", "singleprop_norm_relu"),
    *("interval_conv2d", "interval_linear"),  # after the library's products
]
PROBLEM = "device 0 has compute capability 7.0, for which the kernels of this build have no code"


@pytest.fixture
def old_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose GPU the kernels cannot run on."""

    class Module:
        built_with_cuda, isa = True, "base"

        @staticmethod
        def cuda_problem(device: int) -> str:
            return PROBLEM

    monkeypatch.setattr(native, "_C", Module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    backends._select.cache_clear()
    yield
    backends._select.cache_clear()


@pytest.mark.parametrize("stem", WITH_CUDA_CODE)
@pytest.mark.parametrize("dtype", native.DTYPES, ids=str)
def test_cuda_tensors_get_cuda_code(monkeypatch: pytest.MonkeyPatch, stem: str, dtype: torch.dtype) -> None:
    monkeypatch.setattr(native._C, "cuda_problem", lambda device: "")
    module, reason = backends._load("native", stem, "cuda", dtype)
    assert module is not None and module.__name__ == f"fastbound.native.{stem}", reason


@pytest.mark.parametrize("stem", WITH_CUDA_CODE)
def test_a_request_that_the_gpu_cannot_serve_fails_and_names_the_reason(old_gpu: None, stem: str) -> None:
    with pytest.raises(BackendError, match=f"backend 'native' cannot serve {stem} on cuda .*{PROBLEM}"):
        backends._select(stem, "cuda", torch.float32, "native")


@pytest.mark.parametrize("stem", WITH_CUDA_CODE)
def test_the_automatic_choice_announces_its_fallback(old_gpu: None, stem: str) -> None:
    assert not backends._select(stem, "cuda", torch.float32, None).__name__.startswith("fastbound.native")
    lines = fb.show_config().splitlines()
    after = lines[lines.index(next(line for line in lines if line.startswith(f"{stem} [cuda]"))) :]
    assert after[1] == f"    not native: {PROBLEM}"


def test_a_module_without_usable_cuda_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    assert native._C.cuda_problem(0) in (
        "there is no CUDA driver",
        "fastbound was built without CUDA; rebuild with FASTBOUND_CUDA=on",
    )


def test_lazily_negated_views_are_refused():
    """`data_ptr` and DLPack show their numbers without the sign."""
    negated = torch.conj(torch.complex(torch.zeros(2, 3), torch.ones(2, 3))).imag
    assert negated.is_neg()
    with pytest.raises(ValueError, match=r"got a lazily negated view; pass x\.resolve_neg"):
        fb.ops.interval_norm_relu(negated.unsqueeze(0), torch.ones(2, 3))
    center = fb.ops.interval_norm_relu(negated.resolve_neg().unsqueeze(0), torch.zeros(2, 3))[0]
    assert not center.any()


def test_tensors_of_two_devices_are_refused() -> None:
    rows, box = torch.zeros(2, 3, 4), torch.zeros(2, 4)
    with pytest.raises(ValueError, match="crown_concretize: wanted one device, got cpu and meta; move one of them"):
        crown_concretize(rows, box, box.to("meta"))
    with pytest.raises(ValueError, match="labels: wanted the device of radius, cpu, got meta"):
        interval_margin(torch.zeros(2, 4), torch.zeros(3, 4), torch.zeros(2, dtype=torch.long, device="meta"))


def test_vectors_of_channels_may_be_single_precision_with_half_maps() -> None:
    maps, vector = torch.zeros(2, 3, dtype=torch.bfloat16), torch.zeros(3)
    assert backends.find("interval_norm_relu", maps, maps, vector).__name__ == "fastbound.native.interval_norm_relu"
    with pytest.raises(TypeError, match="wanted one dtype"):
        backends.find("interval_norm_relu", maps, maps.float())
    with pytest.raises(TypeError, match="wanted one dtype"):
        backends.find("interval_norm_relu", maps.float(), maps.float(), vector.bfloat16())


@pytest.mark.parametrize("name", backends.HELPERS)
def test_helpers_follow_requests(name: str) -> None:
    x = torch.zeros(1)
    module = backends.helper(name, x)
    assert module is not None and module.__name__ == f"fastbound.native.{name}"
    for plain in ("reference", "triton"):
        with fb.use_backend(plain):
            assert backends.helper(name, x) is None
            with fb.use_backend("native"):
                assert backends.helper(name, x) is module
            with fb.use_backend("native", only=["interval_linear"]):
                assert backends.helper(name, x) is None
        with fb.use_backend(plain, only=[name]):
            assert backends.helper(name, x) is None
        with fb.use_backend(plain, only=["crown_concretize"]):
            assert backends.helper(name, x) is module
    assert backends.helper(name, x) is module


def test_helpers_that_cannot_serve_leave_the_plain_formula() -> None:
    for request in (None, "native"):
        assert backends._select_helper("crown_windows", "cuda", torch.float32, request) is None
        assert backends._select_helper("crown_windows", "cpu", torch.bfloat16, request) is None
    assert backends._select_helper("layout", "mps", torch.float32, None) is None


def test_the_compiler_gets_no_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert backends.helper("layout", torch.zeros(1)) is None


def test_memory_orders_are_the_same_without_the_helper() -> None:
    x = torch.rand(2, 3, 4, 5)
    ours = layout.channels_last(x), layout.contiguous(x.contiguous(memory_format=torch.channels_last))
    with fb.use_backend("reference"):
        plain = layout.channels_last(x), layout.contiguous(x.contiguous(memory_format=torch.channels_last))
    for a, b in zip(ours, plain):
        assert torch.equal(a, b) and a.stride() == b.stride()


def test_where_plain_torch_is_the_code_of_a_backend() -> None:
    x = torch.zeros(1, 4)
    with fb.use_backend("native"):
        assert backends.find("lipschitz_power", x).__name__ == "fastbound.reference.lipschitz_power"
    with pytest.raises(BackendError, match=r"'native' cannot serve lipschitz_power on cuda .* not written"):
        backends._select("lipschitz_power", "cuda", torch.float32, "native")
    assert "lipschitz_power [cpu]: native" in fb.show_config()
