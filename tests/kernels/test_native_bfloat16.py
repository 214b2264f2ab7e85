"""Maps in bfloat16 through fastbound._C on CPU: the float32 passes on the same numbers, rounded once.

The other `test_native_*` hold those to wide numbers; `test_native_processor` runs all of them on every instruction set.
"""

import numpy as np
import pytest
import torch
from native_calls import NON_EMPTY, close, gamma

from fastbound import _C

HALF = torch.bfloat16


def fenced(x):
    """A copy of ``x`` between fences of NaN, and where it begins."""
    buffer = torch.full((x.numel() + 66,), float("nan"), dtype=x.dtype)
    buffer[33:-33] = x.flatten()
    return buffer, buffer[33:].data_ptr()


def on_maps(name, half, maps, others, outputs, numbers):
    """``_C.<name>`` with every map of `maps` and `outputs` in bfloat16, or all of them in float32.

    Args:
        maps, others: tensors, in the order of the arguments; numbers and None stay. Maps hold numbers of bfloat16.
        outputs: (shape, whether it is a map).
    """
    kept, arguments = [], []
    for is_map, argument in [*((True, a) for a in maps), *((False, a) for a in others)]:
        if argument is None:
            arguments.append(0)
            continue
        kept.append(fenced(argument.to(HALF) if half and is_map else argument))
        arguments.append(kept[-1][1])
    results = []
    for shape, is_map in outputs:
        dtype = HALF if half and is_map else torch.float32
        results.append(fenced(torch.full(shape, float("nan"), dtype=dtype)))
        arguments.append(results[-1][1])
    getattr(_C, name)(3 if half else 0, *arguments, *numbers, 2)
    assert all(buffer[:33].isnan().all() and buffer[-33:].isnan().all() for buffer, _ in results)
    return [buffer[33:-33].clone() for buffer, _ in results]


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
    stack, one = (2, *shape), shape
    sizes = (2, *shape, 0.1)
    calls = {
        "interval_norm_relu_fwd": ((c, r[0]), (scale, shift), [(stack, True), (one, True)], sizes),
        "interval_norm_relu_bwd": ((g, gr[0], c, r[0]), (scale, shift, mul, add), [(stack, True), (one, True)], sizes),
        "singleprop_norm_relu_fwd": ((c[0], r[0]), (scale, shift), [(one, True)] * 2, (*shape, 1)),
        "singleprop_norm_relu_bwd": (
            (g[0], gr[0], c[0], r[0]),
            (scale, shift, mul, add),
            [(one, True)] * 2,
            (*shape, 2),
        ),
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
    channels, sizes = [((shape[1],), False)] * 2, (2, *shape, 0.1)
    magnitude = shape[0] * shape[2] * 16.0
    for name, maps, numbers in (
        ("interval_norm_relu_bwd_sums", (g, gr[0], c, r[0]), sizes),
        ("singleprop_norm_relu_bwd_sums", (g[0], gr[0], c[0], r[0]), (*shape, 1)),
    ):
        half, full = (on_maps(name, low, maps, (scale, shift), channels, numbers) for low in (True, False))
        for a, b in zip(half, full):
            assert a.dtype == torch.float32
            close(a.double().numpy(), b.double().numpy(), gamma(600, np.float32) * magnitude)
    half, full = (on_maps("norm_statistics", low, (c[0],), (), channels, shape) for low in (True, False))
    assert all(torch.allclose(a, b, rtol=2 * torch.finfo(torch.float32).eps, atol=1e-12) for a, b in zip(half, full))
    outputs = [((2, *shape), True), (shape, True), ((8,), False)]
    half, full = (
        on_maps("interval_norm_relu_moments_fwd", low, (c, r[0]), (scale, shift), outputs, sizes)
        for low in (True, False)
    )
    assert torch.equal(half[0], full[0].to(HALF)) and torch.equal(half[1], full[1].to(HALF))
    torch.testing.assert_close(half[2], full[2], rtol=1e-5, atol=0)


@pytest.mark.parametrize("n", [1, 7, 1000, 40003])
def test_signed_weight_grad_of_bfloat16_is_float32(n):
    grad, grad_abs, weight = half_maps((n,), 3)
    weight[::3] = 0
    sources = [fenced(t.to(HALF)) for t in (grad, grad_abs, weight)]
    target = fenced(torch.full((n,), float("nan")))
    _C.signed_weight_grad(3, target[1], *(pointer for _, pointer in sources), n, 2)
    assert torch.equal(target[0][33:-33], grad + weight.sign() * grad_abs)
    assert target[0][:33].isnan().all() and target[0][-33:].isnan().all()


def test_nan_stays_nan_in_bfloat16():
    """Even NaNs whose bits rounding would turn into infinity or zero."""
    words = torch.tensor([0x7FFFFFFF, -1, 0x7F800001, 0x7FC00000, 0x7F800000], dtype=torch.int32)
    scale, shift = words.view(torch.float32), torch.zeros(5)
    stack, radius = torch.ones(2, 5, dtype=HALF), torch.zeros(5, dtype=HALF)
    out, out_radius = torch.zeros(2, 5, dtype=HALF), torch.zeros(5, dtype=HALF)
    pointers = (t.data_ptr() for t in (stack, radius, scale, shift, out, out_radius))
    _C.interval_norm_relu_fwd(3, *pointers, 2, 1, 5, 1, 1.0, 1)
    assert out[0].isnan().tolist() == [True] * 4 + [False]  # the nominal stream
    assert out[0, 4].isinf()
