"""The rules of the zonotope domain for what is not linear; importing a module registers its rules."""

from fastbound.domains.zonotope_rules import activations, max_pooling, norms

__all__ = ["activations", "max_pooling", "norms"]
