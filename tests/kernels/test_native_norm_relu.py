"""`interval_norm_relu*`, its moments and the statistics of a norm, against endpoints and masks in wide numbers."""

import numpy as np
import pytest
from native_calls import DTYPES, NON_EMPTY, SHAPES, affine, close, columns, every_place, gamma, map_inputs, wide


def leaky(y, slope):
    return np.where(y > 0, y, slope * y)


def gated(grad_stack, grad_radius, stack, radius, scale, shift, slope):
    """Gradients after the ReLU, with respect to the affine map's output: through lower and upper, as endpoints."""
    y, r = affine(stack, radius, scale, shift)
    lower, upper = y[-1] - r, y[-1] + r
    # center = (l' + u') / 2, radius = (u' - l') / 2; at a kink the interval counts as inside its linear piece.
    slope_lower = np.where(lower >= 0, 1, slope)
    slope_upper = np.where((upper > 0) | (lower >= 0), 1, slope)
    to_lower = (grad_stack[-1] - grad_radius) / 2 * slope_lower
    to_upper = (grad_stack[-1] + grad_radius) / 2 * slope_upper
    value = [grad_stack[0] * np.where(y[0] > 0, 1, slope)] if len(stack) == 2 else []
    return np.stack([*value, to_lower + to_upper]), to_upper - to_lower


@every_place
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("streams, norm", [(1, True), (2, True), (2, False)])
@pytest.mark.parametrize("slope", [0.0, 0.1, 1.0])
def test_interval_norm_relu_fwd(call, shape, streams, dtype, slope, norm):
    d = map_inputs(shape, streams, dtype)
    scale, shift = (d["scale"], d["shift"]) if norm else (None, None)
    out, out_radius = call("interval_norm_relu_fwd", *shape, streams, slope, d["stack"], d["radius"], scale, shift)
    stack, radius, scale, shift = wide(d["stack"], d["radius"], scale, shift)
    y, r = affine(stack, radius, scale, shift)
    a = np.longdouble(dtype(slope))
    lower, upper = leaky(y[-1] - r, a), leaky(y[-1] + r, a)
    wanted = np.concatenate([leaky(y[:-1], a), (lower + upper)[None] / 2])
    magnitude = affine(abs(stack), radius, *(abs(t) if norm else None for t in (scale, shift)))[0] + r
    close(out, wanted, gamma(8, dtype) * magnitude)
    close(out_radius, (upper - lower) / 2, gamma(8, dtype) * magnitude[-1])
    assert (out_radius >= 0).all()


@every_place
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("streams, norm", [(1, "affine"), (2, "none"), (2, "affine"), (2, "statistics")])
@pytest.mark.parametrize("slope, radius_grad", [(0.0, True), (0.1, True), (0.1, False)])
def test_interval_norm_relu_bwd(call, shape, streams, dtype, slope, radius_grad, norm):
    d = map_inputs(shape, streams, dtype)
    scale, shift = (d["scale"], d["shift"]) if norm != "none" else (None, None)
    mul, add = (d["mul"], d["add"]) if norm == "statistics" else (None, None)
    grads = (d["grad_stack"], d["grad_radius"] if radius_grad else None)
    inputs = (*grads, d["stack"], d["radius"], scale, shift, mul, add)
    out, out_radius = call("interval_norm_relu_bwd", *shape, streams, slope, *inputs)
    g, gr, stack, radius, scale, shift, mul, add = wide(
        d["grad_stack"], d["grad_radius"] * radius_grad, d["stack"], d["radius"], scale, shift, mul, add
    )
    a = np.longdouble(dtype(slope))
    wanted, wanted_radius = gated(g, gr, stack, radius, scale, shift, a)
    magnitude = abs(g) + abs(gr)
    if norm != "none":
        wanted, wanted_radius = columns(scale) * wanted, abs(columns(scale)) * wanted_radius
        magnitude = abs(columns(scale)) * magnitude
    if norm == "statistics":
        wanted[0] += columns(mul) * stack[0] + columns(add)
        magnitude[0] += abs(columns(mul) * stack[0]) + abs(columns(add))
    close(out, wanted, gamma(8, dtype) * magnitude)
    close(out_radius, wanted_radius, gamma(8, dtype) * magnitude[-1])


@every_place
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("slope, radius_grad", [(0.0, True), (0.1, True), (0.1, False)])
def test_interval_norm_relu_bwd_sums(call, shape, streams, dtype, slope, radius_grad):
    d = map_inputs(shape, streams, dtype)
    grads = (d["grad_stack"], d["grad_radius"] if radius_grad else None)
    inputs = (*grads, d["stack"], d["radius"], d["scale"], d["shift"])
    sum_scale, sum_shift = call("interval_norm_relu_bwd_sums", *shape, streams, slope, *inputs)
    g, gr, stack, radius, scale, shift = wide(
        d["grad_stack"], d["grad_radius"] * radius_grad, d["stack"], d["radius"], d["scale"], d["shift"]
    )
    value, spread = gated(g, gr, stack, radius, scale, shift, np.longdouble(dtype(slope)))
    wanted_scale = (value * stack).sum((0, 1, 3)) + np.sign(scale) * (spread * radius).sum((0, 2))
    # At most 512 terms are added in the data's own type, the rest in double; six roundings make a term.
    terms = 512 + 16 if dtype == np.float32 else shape[0] * shape[2] + 16
    magnitude = ((abs(g) + abs(gr)) * abs(stack)).sum((0, 1, 3)) + ((abs(g[-1]) + abs(gr)) * radius).sum((0, 2))
    close(sum_scale, wanted_scale, gamma(terms, dtype) * magnitude)
    close(sum_shift, value.sum((0, 1, 3)), gamma(terms, dtype) * (abs(g) + abs(gr)).sum((0, 1, 3)))


def moments_of(y, r):
    """[8] of a center and a radius in wide numbers, and the magnitudes of their terms."""
    active, inactive = y - r > 0, y + r < 0
    mu = y.sum() / max(y.size, 1)
    spread, wide_spread = (y - mu) ** 2, (abs(y) + abs(mu)) ** 2
    terms = [r, y, active, inactive, y * active, y * inactive, spread * active, spread * inactive]
    sizes = [r, abs(y), active * 0, inactive * 0, y * active, -y * inactive, wide_spread * active]
    return np.array([t.sum() for t in terms]), np.array([t.sum() for t in [*sizes, wide_spread * inactive]])


@every_place
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("streams, norm", [(1, True), (2, True), (2, False)])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_interval_norm_relu_moments_fwd(call, shape, streams, dtype, norm, offset):
    """Far from zero too: a spread made of float32 sums would lose all its digits there."""
    d = map_inputs(shape, streams, dtype)
    d["stack"] += dtype(0 if norm else offset)
    d["shift"] += dtype(offset)
    inputs = (d["stack"], d["radius"], *((d["scale"], d["shift"]) if norm else (None, None)))
    out, out_radius, moments = call("interval_norm_relu_moments_fwd", *shape, streams, 0.0, *inputs)
    alone, alone_radius = call("interval_norm_relu_fwd", *shape, streams, 0.0, *inputs)
    assert np.array_equal(out, alone) and np.array_equal(out_radius, alone_radius)
    stack, radius, *channels = wide(*inputs)
    y, r = affine(stack, radius, *channels)
    wanted, magnitudes = moments_of(y[-1], r)
    # Multiples of 1/64 below 2^11: float32 has them exactly, so that only sums in double and the result are rounded.
    rounded = gamma(d["radius"].size + 8, np.float64) * magnitudes + gamma(1, dtype) * abs(wanted)
    close(moments, wanted, rounded)
    assert (moments[[0, 2, 3, 6, 7]] >= 0).all()


@every_place
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("streams, norm, radius_grad", [(1, True, True), (2, True, False), (2, False, True)])
def test_interval_norm_relu_moments_bwd(call, shape, streams, dtype, norm, radius_grad):
    """Both passes: the gradient of the moments is added to the one that comes through the gate."""
    d = map_inputs(shape, streams, dtype)
    scale, shift = (d["scale"], d["shift"]) if norm else (None, None)
    stack, radius, *channels = wide(d["stack"], d["radius"], scale, shift)
    y, r = affine(stack, radius, *channels)
    moments = moments_of(y[-1], r)[0].astype(dtype)
    grad_moments = np.random.default_rng(5).standard_normal(8).astype(dtype)
    more = np.random.default_rng(6).standard_normal((2, shape[1])).astype(dtype)
    statistics = norm and streams == 2
    grads = (d["grad_stack"], d["grad_radius"] if radius_grad else None)
    inputs = (*shape, streams, 0.1, *grads, d["stack"], d["radius"], scale, shift, grad_moments, moments)
    out, out_radius = call("interval_norm_relu_moments_bwd", *inputs, *(more if statistics else (None, None)))
    g, gr, gm, mul, add = wide(d["grad_stack"], d["grad_radius"] * radius_grad, grad_moments, *more)
    value, spread = gated(g, gr, stack, radius, *channels, np.longdouble(dtype(0.1)))
    size = max(r.size, 1)
    active, inactive = y[-1] - r > 0, y[-1] + r < 0
    mu = y[-1].sum() / size
    offset = y[-1] - mu
    moved = -2 * (gm[6] * (offset * active).sum() + gm[7] * (offset * inactive).sum()) / size
    value[-1] += gm[1] + moved + active * (gm[4] + 2 * gm[6] * offset) + inactive * (gm[5] + 2 * gm[7] * offset)
    spread = spread + gm[0]
    # The moments that the pass reads are rounded, and so are six operations on an element.
    far = abs(y[-1]) + abs(y[-1]).sum() / size
    magnitude = abs(g) + abs(gr)
    magnitude[-1] += abs(gm[[0, 1, 4, 5]]).sum() + 2 * abs(gm[6:]).sum() * (far + far.sum() / size)
    if norm:
        terms = (512 if dtype == np.float32 else size) + 24
        sums = call("interval_norm_relu_moments_bwd_sums", *inputs)
        wanted = (value * stack).sum((0, 1, 3)) + np.sign(channels[0]) * (spread * radius).sum((0, 2))
        allowed = (magnitude * abs(stack)).sum((0, 1, 3)) + (magnitude[-1] * radius).sum((0, 2))
        close(sums[0], wanted, gamma(terms, dtype) * allowed)
        close(sums[1], value.sum((0, 1, 3)), gamma(terms, dtype) * magnitude.sum((0, 1, 3)))
        scale = columns(channels[0])
        value, spread, magnitude = scale * value, abs(scale) * spread, abs(scale) * magnitude
    if statistics:
        value[0] += columns(mul) * stack[0] + columns(add)
        magnitude[0] += abs(columns(mul) * stack[0]) + abs(columns(add))
    close(out, value, gamma(16, dtype) * magnitude)
    close(out_radius, spread, gamma(16, dtype) * magnitude[-1])


@every_place
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", NON_EMPTY, ids=str)
@pytest.mark.parametrize("center", [0.0, 1000.0])
def test_norm_statistics(call, shape, dtype, center):
    rng = np.random.default_rng(sum(shape))
    x = (center + rng.standard_normal(shape)).astype(dtype)
    mean, var = call("norm_statistics", *shape, x)
    (exact,) = wide(x)
    wanted_mean = exact.mean((0, 2))
    wanted_var = ((exact - columns(wanted_mean)) ** 2).mean((0, 2))
    from_first = exact - exact[:1, :, :1]
    summed = gamma(shape[0] * shape[2] + 8, np.float64)
    rounded = gamma(1, dtype)
    close(mean, wanted_mean, rounded * abs(wanted_mean) + summed * (abs(from_first).mean((0, 2)) + abs(center)))
    close(var, wanted_var, rounded * wanted_var + summed * 2 * (from_first**2).mean((0, 2)))
    assert (var >= 0).all()


@every_place
def test_nan_is_never_hidden(call):
    nan = np.float32("nan")
    stack, radius = np.ones((2, 4, 1, 1), np.float32), np.ones((4, 1, 1), np.float32)
    stack[0, 0], stack[1, 1], radius[2] = nan, nan, nan
    out, out_radius = call("interval_norm_relu_fwd", 4, 1, 1, 2, 0.0, stack, radius, None, None)
    assert np.isnan(out[..., 0, 0]).tolist() == [[True, False, False, False], [False, True, True, False]]
    assert np.isnan(out_radius[:, 0, 0]).tolist() == [False, True, True, False]
    _, var = call("norm_statistics", 4, 1, 1, radius)
    assert np.isnan(var).all()
