"""`lipschitz_power` on CPU: matrix times vector and convolutions of one map, which torch's own products serve best."""

from __future__ import annotations

from fastbound.native import product_on_cpu as unsupported
from fastbound.reference.lipschitz_power import DTYPES, lipschitz_power_fwd

__all__ = ["DTYPES", "lipschitz_power_fwd", "unsupported"]
