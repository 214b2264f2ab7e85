"""Primitives on torch tensors, by torch's products and the compiled passes of ``fastbound._C``.

A pass takes tensors, checks dtype, device, number and order of elements of each (``csrc/arguments.h``), and runs on the
device where they lie: on a CPU with torch's number of threads, on a GPU on the current stream without a
synchronisation, so that a CUDA graph can record the call.
"""

from __future__ import annotations

import torch
from torch import Tensor

try:
    from fastbound import _C
except ImportError as error:
    raise ImportError(
        "fastbound's compiled module fastbound._C is missing; install the package (pip install .), because a source "
        "folder on PYTHONPATH is not enough."
    ) from error

HALVES = (torch.float16, torch.bfloat16)  # for storage only: computations are in float32
DTYPES = (torch.float32, torch.float64, *HALVES)


def description() -> str:
    """The instruction set in use and whether CUDA kernels were built."""
    return f"native code for {_C.isa}, {'with' if _C.built_with_cuda else 'without'} CUDA kernels"


def cpu_only(device_type: str, dtype: torch.dtype) -> str | None:
    """The reason why a primitive that has no CUDA code cannot serve such tensors, or None."""
    if device_type != "cpu":
        return f"it has no code for {device_type}"
    if dtype in HALVES:
        return f"{dtype} is not supported on CPU; use float32 or float64"
    return None if dtype in DTYPES else f"{dtype} is not supported"


def product_on_cpu(device_type: str, dtype: torch.dtype) -> str | None:
    """Like `cpu_only`, for a product: ATen computes it, in every dtype for which it is defined."""
    return None if device_type == "cpu" else cpu_only(device_type, dtype)


def cpu_and_cuda(device_type: str, dtype: torch.dtype) -> str | None:
    """Like `cpu_only`, for a primitive with code for both devices; of several GPUs, the current one counts."""
    if device_type != "cuda":
        return cpu_only(device_type, dtype)
    problem = _C.cuda_problem(torch.cuda.current_device() if torch.cuda.is_available() else 0)
    return problem or (None if dtype in DTYPES else f"{dtype} is not supported")


def product_on_cpu_and_cuda(device_type: str, dtype: torch.dtype) -> str | None:
    """Like `product_on_cpu`, for a product that the library computes on a GPU, too, before a kernel of fastbound."""
    return None if device_type == "cpu" else cpu_and_cuda(device_type, dtype)


def maps_on_cpu_and_cuda(device_type: str, dtype: torch.dtype) -> str | None:
    """Like `cpu_and_cuda`, for a primitive whose code also reads maps in bfloat16 on CPU."""
    return None if (device_type, dtype) == ("cpu", torch.bfloat16) else cpu_and_cuda(device_type, dtype)


def in_compute_dtype(x: Tensor | None) -> Tensor | None:
    """A vector of channels [C] in the dtype of the computation: float32 if maps are in half precision."""
    if x is None:
        return None
    return x.float() if x.dtype in HALVES else x.resolve_neg().contiguous()
