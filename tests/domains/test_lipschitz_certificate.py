"""Certified spectral norms against exact ones: never below, and within 1 percent above."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch

from fastbound.domains.lipschitz.norms import certified_norm
from fastbound.domains.lipschitz.operators import ConvolutionOperator, DenseOperator, Operator
from fastbound.domains.lipschitz.torus import torus_norm


def exact(operator: Operator) -> float:
    """From the float64 singular values of the unrolled operator, as large as their rounding lets the norm be."""
    operator = replace(operator, weight=operator.weight.double())
    size = math.prod(operator.input_shape)
    columns = operator.apply(torch.eye(size, dtype=torch.float64).view(size, *operator.input_shape)).flatten(1)
    return float(torch.linalg.svdvals(columns)[0])


def random_operator(seed: int) -> Operator:
    """Strides, even kernels, dilation, groups, paddings larger than the kernel, weights from 1e-4 to 1e4."""
    generator = random.Random(seed)
    torch.manual_seed(seed)
    scale, draw = 10 ** generator.uniform(-4, 4), generator.randint
    if seed % 5 == 0:
        return DenseOperator(torch.randn(draw(1, 90), draw(1, 90)) * scale)
    groups, kernel = generator.choice([1, 1, 2]), (draw(1, 4), draw(1, 5))
    weight = torch.randn(groups * draw(1, 3), draw(1, 3), *kernel) * scale
    stride, padding, dilation = ((draw(low, 3), draw(low, 3)) for low in (1, 0, 1))
    return ConvolutionOperator(weight, (draw(13, 15), draw(13, 15)), stride, padding, dilation, groups)


@pytest.mark.parametrize("seed", range(50))
def test_certified_norms_of_random_layers(seed):
    operator = random_operator(seed)
    norm = exact(operator)
    assert norm * (1 - 1e-12) <= certified_norm(operator) <= 1.01 * norm
    if isinstance(operator, ConvolutionOperator):
        weight = operator.weight.double() / operator.weight.abs().max()
        assert torus_norm(replace(operator, weight=weight)) >= exact(replace(operator, weight=weight)) * (1 - 1e-12)


def test_small_maps_and_sparse_kernels():
    """Where windows would meet on a torus without room for the padding: (1, 0, -1) on 2 pixels would vanish there."""
    bare = ConvolutionOperator(torch.tensor([[[1.0, 0.0, -1.0]]]).double(), (2,), (1,), (1,), (1,), 1)
    assert exact(bare) == 1 <= torus_norm(bare)
    for seed in range(150):
        draw = random.Random(seed).randint
        torch.manual_seed(seed)
        weight = torch.randint(-1, 2, (draw(1, 2), draw(1, 2), draw(1, 4), draw(1, 4))).double()
        padding = (draw(1, 3), draw(1, 3))  # room for one window at least
        size = tuple(max(draw(1, 5), k - 2 * p) for k, p in zip(weight.shape[2:], padding, strict=True))
        operator = ConvolutionOperator(weight, size, (draw(1, 3), draw(1, 3)), padding, (1, 1), 1)
        norm = exact(operator)  # 0 where the window sees nothing but padding, or its taps cancel
        assert norm * (1 - 1e-12) <= certified_norm(operator) <= 1.01 * norm + 1e-6, operator
        assert torus_norm(operator) >= norm * (1 - 1e-12), operator


def test_sixteen_channels_of_28_pixels():
    """The exact norm by a Krylov method that has converged: its residual bounds its error."""
    from scipy.sparse.linalg import LinearOperator, svds

    operator = ConvolutionOperator(torch.randn(16, 16, 3, 3).double(), (28, 28), (1, 1), (1, 1), (1, 1), 1)
    size = 16 * 28 * 28

    def product(function):
        return lambda v: function(torch.from_numpy(v.copy()).view(1, 16, 28, 28)).flatten().numpy()

    matrix = LinearOperator((size, size), product(operator.apply), product(operator.adjoint), dtype="float64")
    norm = float(svds(matrix, k=1, return_singular_vectors=False, tol=1e-10)[0])
    assert norm * (1 - 1e-9) <= certified_norm(operator) <= 1.01 * norm


def test_zero_and_bad_weights():
    assert certified_norm(DenseOperator(torch.zeros(3, 4))) == 0
    for size in (1, 100):  # weights that see nothing but padding
        ends = ConvolutionOperator(torch.tensor([[[1.0, 0.0, -1.0]]]).expand(size, size, 3), (1,), (1,), (1,), (1,), 1)
        assert 0 <= certified_norm(ends) < 1e-3
    with pytest.raises(ValueError, match="contains NaN or infinity"):
        certified_norm(DenseOperator(torch.full((3, 4), float("inf"))))
