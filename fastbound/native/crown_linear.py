"""`crown_linear` on CPU: ATen's matrix products, which no loop of ours beats."""

from fastbound.native import cpu_only as unsupported
from fastbound.reference.crown_linear import crown_linear_bwd, crown_linear_fwd

__all__ = ["crown_linear_bwd", "crown_linear_fwd", "unsupported"]
