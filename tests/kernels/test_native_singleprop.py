"""`singleprop_norm_relu*` against a wide computation by the formulas of its activations."""

import numpy as np
import pytest
from native_calls import DTYPES, SHAPES, affine, close, columns, every_place, gamma, map_inputs, wide


def singleprop_inputs(shape, dtype):
    """As for intervals, with one stream: z, v, scale, shift, the two gradients, mul and add."""
    d = map_inputs(shape, 1, dtype)
    names = ("stack", "radius", "scale", "shift", "grad_stack", "grad_radius", "mul", "add")
    return [d[name][0] if name.endswith("stack") else d[name] for name in names]


def singleprop_radius(z, v, activation):
    """The radius after the ReLU and its slopes in z and v; a kink counts as inside its linear piece."""
    lower, upper = z - v, z + v
    q = 4 * v + 1e-4
    mixed, in_z, in_v = {
        "zero": ((upper.clip(0) - lower.clip(0)) / 2, 0.5 + 0 * z, 0.5 + 0 * z),
        "fast-lin": (3 * v / 4 + z / 2 - z * z / q, 0.5 - 2 * z / q, 0.75 + 4 * z * z / (q * q)),
    }[activation]
    stable = [lower >= 0, upper <= 0]
    nothing = np.zeros_like(z)
    return tuple(
        np.select(stable, [at, nothing], other) for at, other in ((v, mixed), (nothing, in_z), (1 + nothing, in_v))
    )


ACTIVATIONS = ["none", "zero", "fast-lin"]


@every_place
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_singleprop_norm_relu_fwd(call, shape, dtype, norm, activation):
    z, v, scale, shift = singleprop_inputs(shape, dtype)[:4]
    scale, shift = (scale, shift) if norm else (None, None)
    out, out_radius = call("singleprop_norm_relu_fwd", *shape, ACTIVATIONS.index(activation), z, v, scale, shift)
    z, v, scale, shift = wide(z, v, scale, shift)
    y, r = affine(z, v, scale, shift)
    magnitude = abs(y) + r
    wanted, wanted_radius = (y, r) if activation == "none" else (y.clip(0), singleprop_radius(y, r, activation)[0])
    close(out, wanted, gamma(8, dtype) * magnitude)
    close(out_radius, wanted_radius, gamma(16, dtype) * magnitude)


@every_place
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", ["none", "affine", "statistics"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_singleprop_norm_relu_bwd(call, shape, dtype, norm, activation):
    z, v, scale, shift, g, gr, mul, add = singleprop_inputs(shape, dtype)
    scale, shift = (None, None) if norm == "none" else (scale, shift)
    mul, add = (mul, add) if norm == "statistics" else (None, None)
    inputs = (g, gr, z, v, scale, shift, mul, add)
    out, out_radius = call("singleprop_norm_relu_bwd", *shape, ACTIVATIONS.index(activation), *inputs)
    z, v, scale, shift, g, gr, mul, add = wide(z, v, scale, shift, g, gr, mul, add)
    wanted, wanted_radius = singleprop_gated(g, gr, z, v, scale, shift, activation)
    magnitude = abs(g) + abs(gr)
    if norm != "none":
        wanted, wanted_radius = columns(scale) * wanted, abs(columns(scale)) * wanted_radius
        magnitude = abs(columns(scale)) * magnitude
    close(out_radius, wanted_radius, gamma(16, dtype) * magnitude)
    if norm == "statistics":
        wanted = wanted + columns(mul) * z + columns(add)
        magnitude = magnitude + abs(columns(mul) * z) + abs(columns(add))
    close(out, wanted, gamma(16, dtype) * magnitude)


@every_place
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_singleprop_norm_relu_bwd_sums(call, shape, dtype, activation):
    z, v, scale, shift, g, gr = singleprop_inputs(shape, dtype)[:6]
    inputs = (g, gr, z, v, scale, shift)
    sum_scale, sum_shift = call("singleprop_norm_relu_bwd_sums", *shape, ACTIVATIONS.index(activation), *inputs)
    z, v, scale, shift, g, gr = wide(z, v, scale, shift, g, gr)
    value, spread = singleprop_gated(g, gr, z, v, scale, shift, activation)
    terms = 512 + 24 if dtype == np.float32 else shape[0] * shape[2] + 24
    magnitude = ((abs(g) + abs(gr)) * (abs(z) + v)).sum((0, 2))
    close(
        sum_scale, (value * z).sum((0, 2)) + np.sign(scale) * (spread * v).sum((0, 2)), gamma(terms, dtype) * magnitude
    )
    close(sum_shift, value.sum((0, 2)), gamma(terms, dtype) * (abs(g) + abs(gr)).sum((0, 2)))


def singleprop_gated(g, gr, z, v, scale, shift, activation):
    """Gradients of the affine map's output."""
    if activation == "none":
        return g, gr
    y, r = affine(z, v, scale, shift)
    _, in_z, in_v = singleprop_radius(y, r, activation)
    return np.where(y > 0, g, 0) + gr * in_z, gr * in_v
