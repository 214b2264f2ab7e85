"""`signed_weight_grad` and `swap_axes`, the passes over weights and maps that products need."""

import numpy as np
import pytest
import torch
from native_calls import DTYPES, close, eighths, every_place, gamma, on_threads, run

from fastbound import _C


@every_place
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [0, 1, 7, 1000, 40003])
def test_signed_weight_grad(call, n, dtype):
    rng = np.random.default_rng(n)
    grad, grad_abs = rng.standard_normal((2, n)).astype(dtype)
    weight = eighths(rng, n, dtype, -2, 3)
    (out,) = call("signed_weight_grad", n, grad, grad_abs, weight)
    wanted = grad + np.sign(weight) * grad_abs.astype(np.longdouble)
    close(out, wanted, gamma(2, dtype) * (abs(grad) + abs(grad_abs)))


def test_signed_weight_grad_in_place():
    grad, grad_abs, weight = (torch.randn(40003) for _ in range(3))
    wanted = grad + weight.sign() * grad_abs
    with on_threads(2):
        _C.signed_weight_grad(40003, grad, grad_abs, weight, grad)
    assert torch.equal(grad, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 100, 32), (4, 33, 50), (1, 5, 7), (2, 1, 40), (0, 3, 4), (2, 0, 4)])
def test_swap_axes(dtype, shape):
    rng = np.random.default_rng(5)
    x = rng.standard_normal(shape).astype(dtype)
    (out,) = run("swap_axes", *shape, torch.from_numpy(x))
    assert (out.numpy() == x.swapaxes(1, 2)).all()
