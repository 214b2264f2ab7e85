"""Primitives on torch tensors through ATen's products and the compiled passes of ``fastbound._C``."""

from __future__ import annotations

import torch
from torch import Tensor

try:
    from fastbound import _C
except ImportError as error:
    raise ImportError(
        "fastbound's compiled module fastbound._C is missing; the package must be installed (pip install .), a source "
        "folder on PYTHONPATH is not enough."
    ) from error

DTYPE_CODES = {torch.float32: 0, torch.float64: 1}


def description() -> str:
    """The instruction set in use and whether CUDA kernels were built."""
    return f"native code for {_C.isa}, {'with' if _C.built_with_cuda else 'without'} CUDA kernels"


def cpu_only(device_type: str, dtype: torch.dtype) -> str | None:
    """The reason why the CPU passes cannot serve such tensors, or None."""
    if device_type != "cpu":
        return f"its kernels for {device_type} are not connected"
    return None if dtype in DTYPE_CODES else f"{dtype} is not supported"


def product_on_cpu(device_type: str, dtype: torch.dtype) -> str | None:
    """The same for a product, which is ATen's, in any dtype that it is defined for."""
    return None if device_type == "cpu" else cpu_only(device_type, dtype)


def signed_weight_grad(grad: Tensor, grad_abs: Tensor, weight: Tensor) -> None:
    """``grad += sign(weight) * grad_abs`` in one pass; all of one shape and dtype, sign(0) = 0."""
    if not grad.is_contiguous() or grad.stride() != grad_abs.stride() or grad.stride() != weight.stride():
        grad_abs = grad_abs.contiguous()
        weight = weight.contiguous()
    if not grad.is_contiguous() or grad.dtype not in DTYPE_CODES:
        grad.addcmul_(weight.sign(), grad_abs)
        return
    _C.signed_weight_grad(
        DTYPE_CODES[grad.dtype],
        grad.data_ptr(),
        grad_abs.data_ptr(),
        weight.data_ptr(),
        grad.numel(),
        torch.get_num_threads(),
    )


def pointer(tensor: Tensor | None) -> int:
    """The address of the first element, 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()
