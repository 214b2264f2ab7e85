"""Maps in bfloat16 through fastbound._C on CPU: the float32 passes on the same numbers, rounded once.

The other `test_native_*` hold those to wide numbers; `test_native_processor` runs all of them on every instruction set.
"""

import numpy as np
import pytest
import torch
from native_calls import NON_EMPTY, close, gamma, run

HALF = torch.bfloat16


def on_maps(name, half, numbers, maps, others):
    """``_C.<name>`` with its maps, which hold numbers of bfloat16, stored in bfloat16 or all of them in float32."""
    maps = [m.to(HALF) if half else m for m in maps]
    return run(name, *numbers, *maps, *others)


def half_maps(shape, count):
    """Numbers of bfloat16, as float32: ordinary ones, and magnitudes from subnormal to nearly infinite."""
    generator = torch.Generator().manual_seed(sum(shape))
    maps = torch.randn(count, *shape, generator=generator)
    rare = torch.rand(maps.shape, generator=generator) < 0.02
    sizes = torch.tensor([0.0, 1e-40, 1e-3, 3e38])[torch.randint(4, maps.shape, generator=generator)]
    return torch.where(rare, maps.sign() * sizes, maps).to(HALF).float()


@pytest.mark.parametrize("shape", NON_EMPTY, ids=str)
@pytest.mark.parametrize("norm", [False, True])
def test_maps_in_bfloat16_are_computed_in_float32_and_rounded_once(shape, norm):
    """Bit for bit the float32 pass on the same numbers, rounded to nearest even as torch rounds."""
    c, r, g, gr = half_maps((2, *shape), 4)
    r = r.abs()
    scale, shift, mul, add = torch.randn(4, shape[1]) if norm else (None,) * 4
    calls = {
        "interval_norm_relu_fwd": ((*shape, 2, 0.1), (c, r[0]), (scale, shift)),
        "interval_norm_relu_bwd": ((*shape, 2, 0.1), (g, gr[0], c, r[0]), (scale, shift, mul, add)),
        "singleprop_norm_relu_fwd": ((*shape, 1), (c[0], r[0]), (scale, shift)),
        "singleprop_norm_relu_bwd": ((*shape, 2), (g[0], gr[0], c[0], r[0]), (scale, shift, mul, add)),
    }
    for name, arguments in calls.items():
        for half, full in zip(on_maps(name, True, *arguments), on_maps(name, False, *arguments)):
            assert half.dtype == HALF
            assert torch.equal(half.nan_to_num(7.0), full.to(HALF).nan_to_num(7.0)), name


@pytest.mark.parametrize("shape", NON_EMPTY, ids=str)
def test_sums_over_maps_in_bfloat16_are_those_of_float32(shape):
    """Only the order of the float32 additions may differ; statistics and moments are added up in double."""
    c, r, g, gr = torch.randn(4, 2, *shape, generator=torch.Generator().manual_seed(3)).to(HALF).float()
    r = r.abs()
    scale, shift = torch.randn(2, shape[1])
    magnitude = shape[0] * shape[2] * 16.0
    for name, numbers, maps in (
        ("interval_norm_relu_bwd_sums", (*shape, 2, 0.1), (g, gr[0], c, r[0])),
        ("singleprop_norm_relu_bwd_sums", (*shape, 1), (g[0], gr[0], c[0], r[0])),
    ):
        half, full = (on_maps(name, low, numbers, maps, (scale, shift)) for low in (True, False))
        for a, b in zip(half, full):
            assert a.dtype == torch.float32
            close(a.double().numpy(), b.double().numpy(), gamma(600, np.float32) * magnitude)
    half, full = (on_maps("norm_statistics", low, shape, (c[0],), ()) for low in (True, False))
    assert all(torch.allclose(a, b, rtol=2 * torch.finfo(torch.float32).eps, atol=1e-12) for a, b in zip(half, full))
    moments = ((*shape, 2, 0.1), (c, r[0]), (scale, shift))
    half, full = (on_maps("interval_norm_relu_moments_fwd", low, *moments) for low in (True, False))
    assert torch.equal(half[0], full[0].to(HALF)) and torch.equal(half[1], full[1].to(HALF))
    torch.testing.assert_close(half[2], full[2], rtol=1e-5, atol=0)


@pytest.mark.parametrize("n", [1, 7, 1000, 40003])
def test_signed_weight_grad_of_bfloat16_is_float32(n):
    grad, grad_abs, weight = half_maps((n,), 3)
    weight[::3] = 0
    (out,) = run("signed_weight_grad", n, *(t.to(HALF) for t in (grad, grad_abs, weight)))
    assert torch.equal(out, grad + weight.sign() * grad_abs)


def test_nan_stays_nan_in_bfloat16():
    """Even NaNs whose bits rounding would turn into infinity or zero."""
    words = torch.tensor([0x7FFFFFFF, -1, 0x7F800001, 0x7FC00000, 0x7F800000], dtype=torch.int32)
    scale, shift = words.view(torch.float32), torch.zeros(5)
    stack, radius = torch.ones(2, 5, dtype=HALF), torch.zeros(5, dtype=HALF)
    out, _ = run("interval_norm_relu_fwd", 1, 5, 1, 2, 1.0, stack, radius, scale, shift)
    out = out.flatten(1)
    assert out[0].isnan().tolist() == [True] * 4 + [False]  # the nominal stream
    assert out[0, 4].isinf()
