"""Upper bound of the spectral norm of a convolution, by a banded Cholesky factorisation of its Gram matrix.

Pixels whose windows do not overlap are not coupled, so with channels innermost the Gram matrix is banded. Its entries
are read off the images of combs: impulses so far apart that their images do not overlap.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastbound.domains.lipschitz.certificate import gamma, proven
from fastbound.domains.lipschitz.operators import ConvolutionOperator

# Limits of the factorisation: about 20 seconds and a gigabyte.
MOST_OPERATIONS, MOST_NUMBERS = 2e11, 1.3e8
DENSE_ESTIMATE = 64


@dataclass(frozen=True)
class Side:
    """The Gram matrix of a convolution over its inputs, or of its adjoint over its outputs."""

    shape: tuple[int, ...]  # (C, *S)
    reach: tuple[int, ...]  # pixels within this distance, per dimension, are coupled
    gram: Callable[[Tensor], Tensor]  # [N, C, *S] -> [N, C, *S]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bandwidth(self) -> int:
        """The number of diagonals below the main one."""
        steps = _row_major(self.shape[1:])
        pixels = sum(r * step for r, step in zip(self.reach, steps, strict=True))
        return min((pixels + 1) * self.shape[0] - 1, self.size - 1)

    @property
    def numbers(self) -> float:
        """The number of entries of the band."""
        return float(self.size) * (self.bandwidth + 1)

    @property
    def operations(self) -> float:
        return float(self.size) * (self.bandwidth + 1) ** 2


def cheaper_side(operator: ConvolutionOperator) -> Side:
    """The Gram matrix that is cheaper to factorise."""
    spans = [d * (k - 1) for d, k in zip(operator.dilation, operator.weight.shape[2:], strict=True)]
    sides = (
        _side(operator.input_shape, spans, lambda x: operator.adjoint(operator.apply(x))),
        _side(
            operator.output_shape,
            [span // s for span, s in zip(spans, operator.stride, strict=True)],
            lambda y: operator.apply(operator.adjoint(y)),
        ),
    )
    return min(sides, key=lambda side: side.operations)


def is_affordable(side: Side) -> bool:
    return side.operations <= MOST_OPERATIONS and side.numbers <= MOST_NUMBERS


def band_norm(operator: ConvolutionOperator, estimate: float) -> float:
    """Upper bound of the spectral norm of a convolution on maps of its size, with weights in float64 and of about 1.

    It is about as far above the norm as ``estimate`` is below, but at least a relative 1e-8.
    """
    from scipy.linalg import LinAlgError, cholesky_banded  # imported here because only certification needs SciPy

    weight, side = operator.weight, cheaper_side(operator)
    band = _band(side)
    width = len(band) - 1

    def is_positive(t: float) -> bool:
        shifted = -band
        shifted[0] += t
        try:
            cholesky_banded(shifted, overwrite_ab=True, lower=True, check_finite=False)
        except LinAlgError:
            return False
        return True

    # An entry is a sum of at most as many products as there are weights; the norm of |W|^T |W| is at most the product
    # of the largest row sum and column sum of |W|.
    sums = weight.abs().flatten(2).sum(2)
    gram_error = gamma(weight.numel() + 8) * float(sums.sum(0).max() * sums.sum(1).max()) * 2
    # A row of the band holds at most 2 width + 1 errors, each at most gamma times the largest diagonal entry.
    return proven(estimate**2, is_positive, gram_error, lambda t: gamma(2 * width + 16) * (2 * width + 1) * t)


def _side(shape: tuple[int, ...], reach: list[int], gram: Callable[[Tensor], Tensor]) -> Side:
    return Side(shape, tuple(min(r, n - 1) for r, n in zip(reach, shape[1:], strict=True)), gram)


def estimated_norm(side: Side) -> float:
    """Estimate of the spectral norm from below: the root of the largest eigenvalue of the Gram matrix (Lanczos)."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    if side.size <= DENSE_ESTIMATE:
        identity = torch.eye(side.size, dtype=torch.float64).view(-1, *side.shape)
        value = float(torch.linalg.eigvalsh(side.gram(identity).flatten(1)).amax())
        return math.sqrt(max(value, 0.0))

    def product(x: np.ndarray) -> np.ndarray:
        return side.gram(torch.from_numpy(x.copy()).view(1, *side.shape)).flatten().numpy()

    operator = LinearOperator((side.size, side.size), matvec=product, dtype=np.float64)
    start = torch.randn(side.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    if not product(start).any():  # all windows lie in the padding, and Lanczos iteration needs a product that is not 0
        return 0.0
    (value,) = eigsh(operator, k=1, which="LA", v0=start, tol=1e-4, return_eigenvectors=False)
    return math.sqrt(value)


def _band(side: Side) -> np.ndarray:  # [bandwidth + 1, size]
    """The Gram matrix in LAPACK's lower band form: entry (i, j) at [i - j, j], for i >= j; pixels in row-major order,
    channels innermost."""
    channels, *size = side.shape
    band = np.zeros((side.bandwidth + 1, side.size), order="F")
    spacing = [2 * r + 1 for r in side.reach]
    channel = np.arange(channels)
    for offsets in itertools.product(*(range(min(q, n)) for q, n in zip(spacing, size, strict=True))):
        # [C, C, P]: the image in the second channel of an impulse in the first one.
        response = side.gram(_combs(side.shape, offsets, spacing)).flatten(2).numpy()
        reached, impulses = _pairs(size, offsets, spacing, side.reach)
        rows = reached[:, None, None] * channels + channel  # [P, 1, C]
        columns = impulses[:, None, None] * channels + channel[:, None]  # [P, C, 1]
        rows, columns = np.broadcast_arrays(rows, columns)
        lower = rows >= columns
        band[(rows - columns)[lower], columns[lower]] = response[:, :, reached].transpose(2, 0, 1)[lower]
    return band


def _combs(shape: tuple[int, ...], offsets: tuple[int, ...], spacing: list[int]) -> Tensor:  # [C, C, *S]
    """For each channel, impulses in it at ``offsets`` and every ``spacing`` pixels from there."""
    comb = torch.zeros(shape[1:], dtype=torch.float64)
    comb[tuple(slice(o, None, q) for o, q in zip(offsets, spacing, strict=True))] = 1.0
    channel = torch.eye(shape[0], dtype=torch.float64)
    return channel.view(*channel.shape, *(1,) * comb.dim()) * comb


def _pairs(
    size: list[int], offsets: tuple[int, ...], spacing: list[int], reach: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:  # [P], [P]
    """The pixels within reach of an impulse of the comb, and that impulse; both as row-major indices."""
    pixels = np.stack([axis.ravel() for axis in np.indices(size)])  # [D, P]
    o, q, r, n = (np.array(values)[:, None] for values in (offsets, spacing, reach, size))
    impulses = pixels - (pixels - o + r) % q + r
    reached = ((impulses >= 0) & (impulses < n)).all(0)
    return np.flatnonzero(reached), np.ravel_multi_index(tuple(impulses[:, reached]), tuple(size))


def _row_major(size: tuple[int, ...]) -> list[int]:
    """Row-major distance of neighbours along each dimension."""
    return [math.prod(size[d + 1 :]) for d in range(len(size))]
