"""Zonotopes: affine forms in shared error terms; importing a module registers its rules."""

from fastbound.domains.zonotope import batch_norm, elementwise, max_pooling
from fastbound.domains.zonotope.value import Zonotope, zonotope

__all__ = ["Zonotope", "batch_norm", "elementwise", "max_pooling", "zonotope"]
