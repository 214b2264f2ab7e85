"""`Bounds`: an `Interval` whose ends are computed when they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastbound.domains.interval.value import Interval, streams_of
from fastbound.domains.records import Opaque
from fastbound.domains.tape import NO_TAPE, Node


class Bounds(Interval):
    """The `Interval` that `bound` returns: each end is computed when it is first read, in the grad mode of the call."""

    def __init__(
        self,
        shape: torch.Size,
        lower: Callable[[], Tensor],
        upper: Callable[[], Tensor],
        nominal: Callable[[], Tensor | None],
    ) -> None:
        self._shape = shape
        self._grad_enabled = torch.is_grad_enabled()
        self._makers: dict[str, Callable[[], Tensor | None]] = {"lower": lower, "upper": upper, "nominal": nominal}
        self._made: dict[str, Tensor | None] = {}
        self._viewed = False

    def handle(self, node: Node) -> Interval:  # type: ignore[override]
        return Interval(node)

    def _make(self, name: str) -> Any:
        if name not in self._made:
            with torch.set_grad_enabled(self._grad_enabled):
                self._made[name] = self._makers[name]()
            del self._makers[name]  # and the tape that it holds
        return self._made[name]

    @property
    def lower(self) -> Tensor:
        """Lower bounds [B, S]."""
        return self._make("lower")

    @property
    def upper(self) -> Tensor:
        """Upper bounds [B, S]."""
        return self._make("upper")

    @property
    def nominal(self) -> Tensor | None:
        """The specification of the clean outputs [B, S], or None."""
        return self._make("nominal")

    @property
    def center(self) -> Tensor:
        """Midpoint [B, S]; needs both ends."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half-width [B, S]; needs both ends."""
        return (self.upper - self.lower) / 2

    @property
    def shape(self) -> torch.Size:
        return self._shape

    @property
    def _node(self) -> Node:  # type: ignore[override]
        return self.node

    @property
    def node(self) -> Node:
        streams = streams_of(self.lower, self.upper, self.nominal)
        return Node(Opaque("fastbound.bound", ""), (), streams, NO_TAPE)
