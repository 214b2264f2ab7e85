"""A call that the kernel suite measures, with the minimum that it must read, write and multiply; sizes and tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Sizes:
    """`elements`: of the largest map of an element-wise case; the others size the products."""

    elements: int
    batches: tuple[int, ...]
    width: int
    side: int
    features: int

    @staticmethod
    def full(l2_bytes: int) -> Sizes:
        # Even half-precision maps are four times the cache. Products: CNN-7 of width 64 on 32x32 images.
        return Sizes(elements=4 * l2_bytes // 2, batches=(128, 512), width=64, side=32, features=512)

    @staticmethod
    def small() -> Sizes:
        return Sizes(elements=1 << 12, batches=(2,), width=4, side=8, features=8)


@dataclass(frozen=True)
class Maker:
    """Random tensors of one dtype on one device."""

    device: torch.device
    dtype: torch.dtype

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device).to(self.dtype)

    def positive(self, *shape: int) -> Tensor:
        return torch.rand(shape, device=self.device).add_(0.01).to(self.dtype)

    def sums(self, count: int) -> Tensor:
        """Numbers that are summed over a map: float32 for maps of half precision."""
        return torch.rand(count, device=self.device, dtype=torch.promote_types(self.dtype, torch.float32))

    def maps(self, *shape: int, channels_last: bool, positive: bool = False) -> Tensor:
        """[*, B, C, H, W]; the leading dimensions and the batch are one batch of the memory format."""
        flat = (self.positive if positive else self.normal)(math.prod(shape[:-3]), *shape[-3:])
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return flat.contiguous(memory_format=layout).unflatten(0, shape[:-3])


@dataclass(frozen=True)
class Case:
    """A call of one primitive: `make` creates its buffers, `run` calls a backend's module on them.

    `passes`: how often the buffers must be read (2 if a sum over all of them is needed before they are used again).
    `products`: number of products of `multiplications` each; 0 for element-wise work, whose limit is bytes.
    """

    stem: str
    name: str
    make: Callable[[Maker], Tensors]
    run: Callable[[ModuleType, Tensors], Any]
    passes: int = 1
    products: int = 0
    multiplications: int = 0

    def bytes_moved(self, buffers: Tensors, outputs: Any) -> int:
        return self.passes * sum(map(_bytes, buffers)) + sum(map(_bytes, _tensors(outputs)))

    @property
    def flops(self) -> int:
        return 2 * self.products * self.multiplications


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _tensors(outputs: Any) -> list[Tensor]:
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return [tensor for tensor in outputs if isinstance(tensor, Tensor)]
