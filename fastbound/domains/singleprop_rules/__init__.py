"""The rules of SingleProp for what is not linear; importing a module registers its rules."""

from fastbound.domains.singleprop_rules import max_pooling, relu

__all__ = ["max_pooling", "relu"]
