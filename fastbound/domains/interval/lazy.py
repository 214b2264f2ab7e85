"""`lazy_interval`: an `Interval` whose lower and upper bounds are each computed when they are first read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastbound.domains.interval.value import Interval, streams_of
from fastbound.domains.records import Opaque
from fastbound.domains.tape import NO_TAPE, Node


def lazy_interval(
    shape: torch.Size,
    lower: Callable[[], Tensor],  # () -> ``shape``
    upper: Callable[[], Tensor],
    nominal: Callable[[], Tensor | None],
) -> Interval:
    """The `Interval` that `bound` returns: each function runs once, on first access, in the grad mode of this call."""
    return Interval(_LazyNode(shape, lower, upper, nominal))


class _LazyNode(Node):
    """A node without a tape that computes its bounds and its nominal stream separately, each when it is first read."""

    __slots__ = ("_computed", "_functions", "_grad_enabled", "_shape")

    def __init__(
        self,
        shape: torch.Size,
        lower: Callable[[], Tensor],
        upper: Callable[[], Tensor],
        nominal: Callable[[], Tensor | None],
    ) -> None:
        super().__init__(Opaque("fastbound.bound", ""), (), None, NO_TAPE)
        self._shape = shape
        self._grad_enabled = torch.is_grad_enabled()
        self._functions: dict[str, Callable[[], Tensor | None]] = {"lower": lower, "upper": upper, "nominal": nominal}
        self._computed: dict[str, Tensor | None] = {}

    def _read(self, name: str) -> Any:
        if name not in self._computed:
            with torch.set_grad_enabled(self._grad_enabled):
                self._computed[name] = self._functions[name]()
            del self._functions[name]  # it holds a tape
        return self._computed[name]

    @property
    def lower(self) -> Tensor:
        return self._read("lower")

    @property
    def upper(self) -> Tensor:
        return self._read("upper")

    @property
    def nominal(self) -> Tensor | None:
        return self._read("nominal")

    @property
    def center(self) -> Tensor:
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        return (self.upper - self.lower) / 2

    @property
    def stored(self) -> tuple[Tensor, Tensor]:
        return streams_of(self.lower, self.upper, self.nominal)

    @property
    def shape(self) -> torch.Size:
        return self._shape

    @property
    def dtype(self) -> torch.dtype:
        return self.lower.dtype

    @property
    def device(self) -> torch.device:
        return self.lower.device
