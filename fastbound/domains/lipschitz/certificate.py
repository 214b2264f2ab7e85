"""Upper bounds of spectral norms, proven by a Cholesky factorisation in float64.

If t I - W^T W is positive semidefinite, then ||W||_2 <= sqrt(t). A factorisation that succeeds proves this up to its
backward error, which has a known bound. So t is taken slightly above an estimate of ||W||^2. The proof does not depend
on that estimate: with a bad one the factorisation fails, and a larger t is tried.

Source: Rump, BIT Numerical Mathematics 46, 2006 (verification of positive definiteness); Higham, Accuracy and
Stability of Numerical Algorithms, theorems 10.3 to 10.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

UNIT = 2.0**-53
FIRST_SLACK, SLACK_GROWTH = 1e-8, 30.0


def gamma(n: int) -> float:
    """n u / (1 - n u) in float64."""
    return n * UNIT / (1 - n * UNIT)


def dense_norm(matrix: Tensor) -> float:  # [M, N]
    """Upper bound of the spectral norm of a real matrix, about 1e-8 above it.

    Raises ValueError for NaN or infinity.
    """
    weight, scale = scaled(matrix)
    if scale == 0:
        return 0.0
    return scale * gram_norm(weight if weight.shape[0] <= weight.shape[1] else weight.T)


def gram_norm(matrices: Tensor) -> float:  # [..., M, N], real or complex
    """Upper bound of the largest spectral norm of ``matrices`` in float64, by factorisations of size M."""
    size, terms = matrices.shape[-2:]
    gram = matrices @ matrices.mH
    frobenius = float(matrices.abs().square().sum((-2, -1)).max())
    shift = torch.eye(size, dtype=torch.float64)

    def is_positive(t: float) -> bool:
        return not torch.linalg.cholesky_ex(t * shift - gram).info.any()

    # Complex products and sums round like real ones of four times as many terms; | |W| |W|^T | <= ||W||_F^2.
    gram_error = gamma(4 * terms + 8) * 2 * frobenius
    return proven(
        float(torch.linalg.eigvalsh(gram).amax()), is_positive, gram_error, lambda t: gamma(4 * size + 16) * size * t
    )


def proven(
    estimate: float, is_positive: Callable[[float], bool], gram_error: float, backward_error: Callable[[float], float]
) -> float:
    """Upper bound of ||W||_2.

    Args:
        estimate: of ||W||_2^2 for weights of about 1; any number, also 0 if the layer maps everything to 0.
        is_positive: whether the factorisation of t I - G succeeds, with G the computed W^T W.
        gram_error: bound of ||G - W^T W||_2.
        backward_error: bound of the backward error of the factorisation of t I - G.
    """
    slack = FIRST_SLACK
    while not is_positive(t := max(estimate, UNIT) * (1 + slack)):
        slack *= SLACK_GROWTH
    # t - G_ii rounds once, and so does each operation here; underflow is negligible.
    total = (t * (1 + 2 * UNIT) + gram_error + backward_error(t)) * (1 + 8 * UNIT)
    return math.sqrt(total) * (1 + 2 * UNIT)


def scaled(weight: Tensor) -> tuple[Tensor, float]:
    """The weight in float64 on the CPU, divided by a power of two so that squares neither overflow nor vanish.

    The divisor is 0 for a weight of zeros, which stays as it is. Raises ValueError for NaN or infinity.
    """
    exact = weight.detach().to("cpu", torch.float64)
    largest = float(exact.abs().max()) if exact.numel() else 0.0
    if not math.isfinite(largest):
        raise ValueError(f"certified_constant: a weight of shape {list(weight.shape)} contains NaN or infinity.")
    scale = 2.0 ** math.frexp(largest)[1] if largest > 0 else 0.0
    return (exact / scale if scale else exact), scale
