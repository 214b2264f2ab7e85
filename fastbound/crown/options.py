"""The options of the backward methods."""

from __future__ import annotations

from dataclasses import dataclass

from fastbound.crown.relu_family import FAMILY
from fastbound.primitives import crown_relu

RELAXATIONS = (*crown_relu.RELAXATIONS, *FAMILY)

# Rows that the library creates itself (identities, intermediate layers) take at most this many bytes per chunk.
DEFAULT_BUDGET = 64 << 20


@dataclass(frozen=True)
class Options:
    """How a backward pass relaxes, whether it may stop at interval bounds, and how much memory its rows may take."""

    relaxation: str = "adaptive"
    fallback: str | None = None
    memory_budget: int | None = None

    def __post_init__(self) -> None:
        if self.relaxation not in RELAXATIONS:
            raise ValueError(f"relaxation: wanted one of {', '.join(RELAXATIONS)}, got {self.relaxation!r}.")
        if self.fallback not in (None, "ibp"):
            raise ValueError(f"fallback: wanted None or 'ibp', got {self.fallback!r}.")
        if self.memory_budget is not None and (not isinstance(self.memory_budget, int) or self.memory_budget <= 0):
            raise ValueError(f"memory_budget: wanted a positive number of bytes or None, got {self.memory_budget!r}.")

    def rows_within(self, row_bytes: int) -> int:
        """How many rows of ``row_bytes`` (of the whole batch) fit; raises ValueError if not even one does."""
        if self.memory_budget is not None and self.memory_budget < row_bytes:
            raise ValueError(
                f"memory_budget: one row of this network takes {row_bytes} bytes for the whole batch, got "
                f"{self.memory_budget}; raise it or bound fewer samples at once."
            )
        return max(1, (self.memory_budget or DEFAULT_BUDGET) // max(row_bytes, 1))
