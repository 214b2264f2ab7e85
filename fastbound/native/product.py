"""Matrix products; on a CPU by the faster of the two libraries that torch has there.

torch gives float32 products to MKL, which uses AVX-512 only on processors of its own maker: on an AMD EPYC oneDNN took
0.40 to 0.56 of its time in every layout (2 threads; 240 us instead of 515 at 256 x 784 x 256), and 0.77 to 0.98 when
kept from AVX-512 too. A call costs 12 us more, which small products do not earn back. Products in half precision are
oneDNN's in torch already.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Number of multiplications from which oneDNN is used: at 2^20 MKL took 11 us and oneDNN 15; at 2^22, 60 and 38.
LEAST = 2**21


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # [*, I], [O, I], [O] -> [*, O]
    """``x W^T + bias``, for tensors of any strides."""
    if x.numel() * weight.shape[0] < LEAST or not _prefers_onednn(x, weight):
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    product = torch.ops.mkldnn._linear_pointwise.default(rows, weight, bias, "none", [], "")
    return product.view(*x.shape[:-1], weight.shape[0])


def _prefers_onednn(x: Tensor, weight: Tensor) -> bool:
    # oneDNN's product has no derivative, so autograd and the compiler record torch's own.
    recorded = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    float32_on_cpu = x.device.type == "cpu" and x.dtype == torch.float32
    return float32_on_cpu and not recorded and not torch.compiler.is_compiling() and _onednn_is_faster()


@cache
def _onednn_is_faster() -> bool:
    """Whether oneDNN was measured to be faster on processors of this maker, and this torch has the operator."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as processors:
            return any(line.startswith("vendor_id") and "AuthenticAMD" in line for line in processors)
    except OSError:
        return False
