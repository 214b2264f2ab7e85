"""Values with an l2 Lipschitz constant, for globally-robust networks; importing a module registers its rules.

Source: Leino, Wang & Fredrikson, ICML 2021, arXiv 2102.08452.
"""

from fastbound.domains.lipschitz import arithmetic, elementwise, layers, pooling, refused, shapes
from fastbound.domains.lipschitz.state import LipschitzState
from fastbound.domains.lipschitz.value import Lipschitz, lipschitz

__all__ = [
    "Lipschitz",
    "LipschitzState",
    "elementwise",
    "arithmetic",
    "layers",
    "lipschitz",
    "pooling",
    "refused",
    "shapes",
]
