"""The rules of the interval domain; importing a module registers its rules."""

from fastbound.domains.interval_rules import activations, affine, arithmetic, pooling, shapes

__all__ = ["activations", "affine", "arithmetic", "pooling", "shapes"]
