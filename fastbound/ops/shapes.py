"""The checks of shapes that several primitives share; a wrong one may otherwise be broadcast, or fail inside torch."""

from __future__ import annotations

from torch import Tensor


def check_vectors(length: int, of: str, **vectors: Tensor | None) -> None:  # each [length]
    """Raises ValueError unless each of ``vectors`` is None, or has one number for each ``of``."""
    for name, vector in vectors.items():
        if vector is not None and vector.shape != (length,):
            raise ValueError(f"{name}: wanted shape ({length},), a number for each {of}, got {tuple(vector.shape)}.")


def check_streams(stack: Tensor, radius: Tensor) -> None:  # [N, *], [*]
    """Raises ValueError unless ``stack`` holds one or two streams of the shape of ``radius``."""
    if stack.dim() == 0 or stack.shape[1:] != radius.shape or not 1 <= stack.shape[0] <= 2:
        shape = ", ".join(str(size) for size in ("1 or 2", *radius.shape))
        raise ValueError(f"stack: wanted shape [{shape}], streams of the shape of radius, got {tuple(stack.shape)}.")
