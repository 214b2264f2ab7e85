"""The check of the CUDA build: it finds spills and warnings, and passes what fits."""

from __future__ import annotations

from pathlib import Path

import check_cuda_build
import pytest
from cuda_on_cpu.build import find_nvcc

pytestmark = pytest.mark.cuda_on_cpu


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
