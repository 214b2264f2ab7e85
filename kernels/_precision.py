"""The one place that chooses the precision of a product, only by torch's flags and the dtype."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

PRECISIONS = ("ieee", "tf32", "tf32x3", "bf16", "fp16")
HALF = {torch.bfloat16: "bf16", torch.float16: "fp16"}

# Of the process, as torch's flags are: autograd runs backward passes on a GPU in threads of its own.
_inside_three_passes = 0


@contextlib.contextmanager
def three_pass_tf32() -> Iterator[None]:
    """Inside the context, products that torch's flags allow in TF32 take three passes: nearly the digits of float32.

    It never lowers a precision: if the flags ask for IEEE float32, as in certification, nothing changes.
    """
    global _inside_three_passes
    _inside_three_passes += 1
    try:
        yield
    finally:
        _inside_three_passes -= 1


def product_precision(dtype: torch.dtype, convolution: bool) -> str:
    """One of `PRECISIONS`. Sums are float32 in all of them.

    float32 is ``ieee`` unless ``torch.backends.cuda.matmul.fp32_precision`` or, for convolutions,
    ``torch.backends.cudnn.conv.fp32_precision`` is ``tf32``; also for CPU tensors in the interpreter, which runs what
    a GPU would run.
    """
    if dtype in HALF:
        return HALF[dtype]
    backends: Any = torch.backends
    switch = backends.cudnn.conv if convolution else backends.cuda.matmul
    if switch.fp32_precision != "tf32":
        return "ieee"
    return "tf32x3" if _inside_three_passes else "tf32"


def dot_precision(precision: str) -> str:
    """The precision as `tl.dot` names it; for half precision there is no choice: its products are exact in float32."""
    return "ieee" if precision in HALF.values() else precision
