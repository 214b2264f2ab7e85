"""The CUDA kernels, compiled for the processor, behind the primitives that they serve; and what a launch covers.

The contract suite and `test_native` run on them as they stand: values, gradients, memory layouts, fences of NaN, all
four storage types. What only a GPU can show is left to the tests marked ``gpu``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import check_cuda_build
import contract
import pytest
import test_contract
import test_layouts
import torch
from cuda_on_cpu.build import find_nvcc, load
from torch import Tensor

from fastbound import backends, native

pytestmark = pytest.mark.cuda_on_cpu

ROOT = Path(__file__).resolve().parent.parent
STEMS = sorted({p.stem for p in (ROOT / "csrc/cuda").glob("*.cu")} & set(contract.STEMS))
every_sample = pytest.mark.parametrize("stem, index", [p for p in contract.SAMPLES if p.values[0] in STEMS])


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors of the processor go where CUDA tensors would go."""
    module = load()

    def launch(name, like, tensors, numbers, workspace=None):
        code = native.DTYPE_CODES[like.dtype]
        lent = []
        if workspace is not None:
            size = getattr(module, f"{name}_workspace")(code, *workspace)
            lent = [torch.full((size,), float("nan"), dtype=torch.float64)]
        pointers = [native.pointer(t) for t in tensors]
        getattr(module, f"{name}_cuda")(code, *pointers, *numbers, *(m.data_ptr() for m in lent), 0, 0)

    for stem in (*STEMS, "signed_weight_grad"):
        serving = importlib.import_module(f"fastbound.native.{stem}")
        monkeypatch.setattr(serving, "launch", launch)
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
    fence = torch.full((width,), float("nan"))
    sources = [torch.cat((fence.to(dtype), t, fence.to(dtype))) for t in (grad, grad_abs, weight)]
    out = torch.full((n + 2 * width,), float("nan"))
    pointers = [t[width:].data_ptr() for t in (out, *sources)]
    load().signed_weight_grad_cuda(native.DTYPE_CODES[dtype], *pointers, n, 0, 0)
    assert torch.equal(out[width:-width], grad.float() + weight.sign().float() * grad_abs.float())
    assert out[:width].isnan().all() and out[-width:].isnan().all()


# ---- what a launch covers --------------------------------------------------------------------------------------------

SHAPES = [  # samples, outer, channels, inner
    *[(1, outer, channels, 1) for outer, channels in ((1, 1), (7, 3), (1000, 64), (33, 1100), (5, 513), (900, 17))],
    *[(samples, outer, channels, 1) for samples, outer, channels in ((3, 5, 7), (4, 64, 12), (2, 3, 515))],
    *[(samples, 1, channels, inner) for samples, channels, inner in ((1, 1, 5), (5, 3, 9), (40, 6, 16), (2, 3, 5000))],
    *[(1, 0, 3, 1), (0, 1, 3, 5), (2, 4, 0, 1)],
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("pack", [2, 4, 8])
@pytest.mark.parametrize("least_steps, most_blocks", [(1, 4096), (4, 2**31 - 1), (2, 3)])
def test_every_element_is_met_once_by_a_thread_of_its_channel(shape, pack, least_steps, most_blocks):
    samples, outer, channels, inner = shape
    size = outer * channels * inner
    module = load()
    blocks, threads, parts, period = module.sweep(shape, pack, least_steps, most_blocks)
    met = torch.zeros(samples * size, dtype=torch.long)
    for sample, at, count, channel in module.visits(shape, pack, least_steps, most_blocks, 0, blocks):
        assert 1 <= count <= pack
        met[at : at + count] += 1
        for k in range(count):
            assert (at + k) // size == sample
            assert (at + k) // inner % channels == ((channel + k) % channels if inner == 1 else channel)
    assert (met == 1).all()
    assert threads % 32 == 0 and threads <= 128
    if samples * size:
        assert period % channels == 0 and parts * (blocks // parts) == blocks
        assert blocks // parts * max(1, most_blocks // (blocks // parts)) >= blocks


@pytest.mark.parametrize(
    "shape", [(1, 3 * 2**29, 4, 1), (2**20, 1, 64, 2**10), (1, 2**36, 1, 1), (2**18, 1, 2**12, 49)]
)
def test_more_than_two_to_the_31_elements(shape):
    """The last block meets the last element; addresses are 64 bits wide."""
    samples, outer, channels, inner = shape
    size = samples * outer * channels * inner
    module = load()
    blocks, *_ = module.sweep(shape, 4, 4, 2**31 - 1)
    assert 0 < blocks <= 2**31 - 1 and size > 2**31
    last = module.visits(shape, 4, 4, 2**31 - 1, blocks - 1, blocks)
    assert max(at + count for _, at, count, _ in last) == size
    assert min(at for _, at, _, _ in last) > 2**31


@pytest.mark.parametrize(
    "samples, rows, size", [(1, 1, 1), (3, 9, 700), (128, 9, 65536), (2, 5000, 31), (4, 0, 9), (4, 3, 0)]
)
@pytest.mark.parametrize("pack", [2, 4, 8])
def test_tiles_cover_rows_and_elements(samples, rows, size, pack):
    blocks, threads, tiles, rows_per_chunk, chunks = load().row_tiles(samples, rows, size, pack)
    assert blocks == samples * tiles * chunks
    assert tiles * threads * pack >= size and (tiles - 1) * threads * pack < max(size, 1)
    assert chunks * rows_per_chunk >= rows and (chunks - 1) * rows_per_chunk < max(rows, 1)
    assert threads % 32 == 0 and threads <= 256


# ---- the check of the build ------------------------------------------------------------------------------------------

SPILLS = """
__global__ void __launch_bounds__(1024, 2) greedy_kernel(float* x) {
  float kept[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) kept[i] = x[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 64; ++i) x[i * 1024 + threadIdx.x] = kept[63 - i] * kept[i];
}
"""


def compiled(tmp_path: Path, text: str) -> tuple[Path, list[check_cuda_build.Usage], bytes]:
    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("no nvcc here")
    source = tmp_path / "any.cu"
    source.write_text(text)
    output, binary = check_cuda_build.compile_source(nvcc, source)
    return source, check_cuda_build.parse(output), binary


def test_a_spill_is_found(tmp_path: Path) -> None:
    source, usages, binary = compiled(tmp_path, SPILLS)
    found = check_cuda_build.problems(source, usages, binary)
    assert len(found) == 2 and all("greedy_kernel spills" in line for line in found), found


def test_a_kernel_that_fits_passes_for_every_architecture(tmp_path: Path) -> None:
    text = (
        "template <typename T> __global__ void add_kernel(T* x) { ++*x; }\ntemplate __global__ void add_kernel(int*);"
    )
    source, usages, binary = compiled(tmp_path, text)
    assert check_cuda_build.problems(source, usages, binary) == []
    assert [(u.kernel, u.architecture) for u in usages] == [("add_kernel<int>", "sm_80"), ("add_kernel<int>", "sm_90a")]
    assert all(0 < u.registers < 32 and u.stack == 0 for u in usages)
    assert len(check_cuda_build.problems(source, [], b"")) == 3  # two architectures and the PTX


def test_a_warning_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="never referenced"):
        compiled(tmp_path, "__global__ void idle_kernel() { int unused; }")
