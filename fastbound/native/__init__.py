"""Primitives on torch tensors, by torch's products and the compiled passes of ``fastbound._C``."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

try:
    from fastbound import _C
except ImportError as error:
    raise ImportError(
        "fastbound's compiled module fastbound._C is missing; install the package (pip install .), because a source "
        "folder on PYTHONPATH is not enough."
    ) from error

DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
HALVES = (torch.float16, torch.bfloat16)  # for storage only: computations are in float32
DTYPES = tuple(DTYPE_CODES)


def description() -> str:
    """The instruction set in use and whether CUDA kernels were built."""
    return f"native code for {_C.isa}, {'with' if _C.built_with_cuda else 'without'} CUDA kernels"


def cpu_only(device_type: str, dtype: torch.dtype) -> str | None:
    """The reason why a primitive that has no CUDA code cannot serve such tensors, or None."""
    if device_type != "cpu":
        return f"it has no code for {device_type}"
    if dtype in HALVES:
        return f"{dtype} is not supported on CPU; use float32 or float64"
    return None if dtype in DTYPE_CODES else f"{dtype} is not supported"


def product_on_cpu(device_type: str, dtype: torch.dtype) -> str | None:
    """Like `cpu_only`, for a product: ATen computes it, in every dtype for which it is defined."""
    return None if device_type == "cpu" else cpu_only(device_type, dtype)


def cpu_and_cuda(device_type: str, dtype: torch.dtype) -> str | None:
    """Like `cpu_only`, for a primitive with code for both devices; of several GPUs, the current one counts."""
    if device_type != "cuda":
        return cpu_only(device_type, dtype)
    problem = _C.cuda_problem(torch.cuda.current_device() if torch.cuda.is_available() else 0)
    return problem or (None if dtype in DTYPE_CODES else f"{dtype} is not supported")


def product_on_cpu_and_cuda(device_type: str, dtype: torch.dtype) -> str | None:
    """Like `product_on_cpu`, for a product that the library computes on a GPU, too, before a kernel of fastbound."""
    return None if device_type == "cpu" else cpu_and_cuda(device_type, dtype)


def maps_on_cpu_and_cuda(device_type: str, dtype: torch.dtype) -> str | None:
    """Like `cpu_and_cuda`, for a primitive whose code also reads maps in bfloat16 on CPU."""
    return None if (device_type, dtype) == ("cpu", torch.bfloat16) else cpu_and_cuda(device_type, dtype)


def launch(
    name: str,
    like: Tensor,
    tensors: Iterable[Tensor | None],
    numbers: Iterable[float],
    workspace: Iterable[int] | None = None,
) -> None:
    """Run ``fastbound._C.<name>`` for the dtype and on the device of ``like``.

    On CPU it runs with torch's number of threads; on a GPU it runs on the current stream without a synchronisation, so
    that a CUDA graph can record the call.

    Args:
        tensors, numbers: the arguments of the function, in order.
        workspace: the arguments of ``<name>_workspace``, which computes how much memory the CUDA code needs; None if
            it needs none.
    """
    arguments = (DTYPE_CODES[like.dtype], *(pointer(t) for t in tensors), *numbers)
    if like.device.type == "cpu":
        getattr(_C, name)(*arguments, torch.get_num_threads())
        return
    scratch: tuple[int, ...] = ()
    if workspace is not None:
        size = getattr(_C, f"{name}_workspace")(arguments[0], *workspace)
        memory = torch.empty(size, dtype=torch.float64, device=like.device)
        scratch = (memory.data_ptr(),)
    stream = torch.cuda.current_stream(like.device)
    getattr(_C, f"{name}_cuda")(*arguments, *scratch, stream.cuda_stream, stream.device_index)


def in_compute_dtype(x: Tensor | None) -> Tensor | None:
    """A vector of channels [C] in the dtype of the computation: float32 if maps are in half precision."""
    if x is None:
        return None
    return x.float() if x.dtype in HALVES else x.contiguous()


def pointer(tensor: Tensor | None) -> int:
    """The address of the first element, 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()
