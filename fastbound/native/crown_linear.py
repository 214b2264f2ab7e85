"""`crown_linear` on CPU: ATen's matrix products, which no loop of ours beats."""

from fastbound.native import product_on_cpu as unsupported
from fastbound.reference.crown_linear import DTYPES, crown_linear_bwd, crown_linear_fwd

__all__ = ["DTYPES", "crown_linear_bwd", "crown_linear_fwd", "unsupported"]
