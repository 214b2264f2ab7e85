"""The certified norm of a layer, by the proof that suits its operator."""

from __future__ import annotations

import warnings
from dataclasses import replace

from fastbound.domains.lipschitz.band import band_norm, cheaper_side, estimated_norm, is_affordable
from fastbound.domains.lipschitz.certificate import UNIT, dense_norm, scaled
from fastbound.domains.lipschitz.operators import ConvolutionOperator, DenseOperator, Operator
from fastbound.domains.lipschitz.torus import torus_norm

# The norm on a torus is taken if it is at most TIGHT times an estimate from below; above LOOSE times, with a warning.
TIGHT, LOOSE = 1.002, 1.01


def certified_norm(operator: Operator) -> float:
    """Upper bound of the spectral norm of ``operator``.

    For a linear layer it is about 1e-8 above the norm, for a convolution at most 0.2 percent. If that would take more
    than about 20 seconds or a gigabyte, it is the norm on a torus, with a warning if that is more than 1 percent above.

    Raises ValueError for NaN or infinity.
    """
    if isinstance(operator, DenseOperator):
        return dense_norm(operator.weight)
    weight, scale = scaled(operator.weight)
    return scale * _convolution_norm(replace(operator, weight=weight)) if scale else 0.0


def _convolution_norm(operator: ConvolutionOperator) -> float:
    on_torus, side = torus_norm(operator), cheaper_side(operator)
    estimate = estimated_norm(side)
    if on_torus <= TIGHT * estimate:
        return on_torus
    if is_affordable(side):
        return band_norm(operator, estimate)
    if on_torus > LOOSE * estimate:
        warnings.warn(
            f"the certified norm of a convolution on maps of {list(operator.size)} pixels is the norm on a torus, "
            f"{100 * (on_torus / max(estimate, UNIT) - 1):.1f} percent above the estimate: a tighter proof would need "
            f"{8e-9 * side.numbers:.1f} GB and {1e-9 * side.operations:.0f} GFLOP.",
            stacklevel=2,
        )
    return on_torus
