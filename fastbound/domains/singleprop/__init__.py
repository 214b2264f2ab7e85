"""SingleProp: clean activations with one radius, a training surrogate; importing a module registers its rules."""

from fastbound.domains.singleprop import max_pooling, relu
from fastbound.domains.singleprop.value import NOT_A_BOUND, SingleProp, singleprop

__all__ = ["NOT_A_BOUND", "SingleProp", "max_pooling", "relu", "singleprop"]
