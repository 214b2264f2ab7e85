"""The limits of the card, measured in the same run: a large copy, and a large matrix product per precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from bench.gpu.timing import time_kernel
from fastbound.certify.modes import float32_products

PRECISIONS = ("ieee", "tf32", "bf16")


@contextmanager
def products_in(precision: str) -> Iterator[torch.dtype]:
    """Inside the context float32 products run in "ieee" or "tf32"; yields the dtype of the tensors to multiply."""
    with float32_products("tf32" if precision == "tf32" else "ieee"):
        yield torch.bfloat16 if precision == "bf16" else torch.float32


def l2_bytes(device: torch.device) -> int:
    """The size of the last cache of the card; on a CPU a small number, for a smoke test."""
    return torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else 1 << 14


def copy_bandwidth(device: torch.device, rounds: int = 30) -> float:
    """Bytes a second of a copy of four times the L2 or more, reads and writes counted."""
    count = 16 * l2_bytes(device) // 4
    pairs = [(torch.randn(count, device=device), torch.empty(count, device=device)) for _ in range(2)]
    works = [lambda a=a, b=b: b.copy_(a) for a, b in pairs]
    return 2 * 4 * count / (1e-3 * time_kernel(works, device, rounds).median_ms)


def matrix_rate(device: torch.device, precision: str, size: int = 8192, rounds: int = 10) -> float:
    """FLOP a second of a square product of random matrices."""
    with products_in(precision) as dtype:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        return 2 * size**3 / (1e-3 * time_kernel([lambda: a @ b], device, rounds).median_ms)


def measure(device: torch.device, small: bool) -> dict[str, Any]:
    """All ceilings, as JSON-compatible data."""
    size = 64 if small else 8192
    return {
        "l2_bytes": l2_bytes(device),
        "copy_bytes_per_s": copy_bandwidth(device),
        "matrix_flop_per_s": {
            precision: matrix_rate(device, precision, size // 2 if precision == "ieee" else size)
            for precision in PRECISIONS
        },
    }
