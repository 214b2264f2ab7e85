"""The rules of the interval domain for what is not linear; importing a module registers its rules."""

from fastbound.domains.interval_rules import activations, max_pooling, products

__all__ = ["activations", "max_pooling", "products"]
