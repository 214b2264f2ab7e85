"""Backward linear bounds (CROWN): the walk over the tape and its relaxations."""

from fastbound.crown.api import LinearFunction, bound, linear_function

__all__ = ["LinearFunction", "bound", "linear_function"]
