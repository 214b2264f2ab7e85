"""Every function of fastbound._C against a wide computation written here, from endpoints and masks.

Values, scales and shifts are small multiples of 1/8: every gate is then decided exactly in both precisions, and kinks
(lower == 0, upper == 0, value == 0), zero scales and equal weights occur often. Inputs are fenced by NaN, outputs
filled with NaN and fenced by a mark. Tolerances are gamma(n) = n u / (1 - n u) times the magnitudes that were added.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_on_cpu import build as cuda_on_cpu

from fastbound import _C

# Elements on each side of an array. The first keeps it aligned to 16 bytes, so that CUDA code reads it in packs.
FENCES, MARK = (64, 33), 12345.0
DTYPES = [np.float32, np.float64]
SHAPES = [  # outer, channels, inner; two threads share the work from 16384 elements on
    (1, 1, 1),
    (5, 3, 1),
    (67, 16, 1),
    (9, 200, 1),
    (5, 511, 1),
    (3, 1100, 1),
    (550, 30, 1),
    (16500, 1, 1),
    (4, 3, 5),
    (3, 5, 64),
    (100, 10, 17),
    (2, 300, 9),
    (1, 1, 17003),
    (0, 3, 1),
    (2, 0, 4),
    (2, 3, 0),
]
NON_EMPTY = [shape for shape in SHAPES if 0 not in shape]
MARGINS = [
    (1, 1, 1),
    (3, 5, 2),
    (7, 33, 10),
    (16, 300, 10),
    (4, 513, 43),
    (64, 700, 10),
    (0, 5, 3),
    (5, 0, 3),
    (4, 6, 1),
]


def gamma(n, dtype):
    u = np.finfo(dtype).eps / 2
    return n * u / (1 - n * u)


class Memory:
    """An array between fences, on the device that the call will run on."""

    def __init__(self, where, values=None, *, shape=None, dtype=None, width=FENCES[1]):
        self.output = values is None
        self.shape = tuple(shape) if self.output else values.shape
        dtype = dtype if self.output else values.dtype
        count = int(np.prod(self.shape))
        fence = MARK if self.output else (np.nan if np.issubdtype(dtype, np.floating) else 2**62)
        self.inside = slice(width, width + count)
        buffer = np.full(count + 2 * width, fence, dtype)
        buffer[self.inside] = np.nan if self.output else values.reshape(-1)
        self.tensor = torch.from_numpy(buffer).to(where)
        self.pointer = self.tensor[width:].data_ptr()

    def get(self):
        buffer = self.tensor.cpu().numpy()
        if self.output:
            outside = np.delete(buffer, self.inside)
            assert (outside == MARK).all(), "wrote outside its output"
        return buffer[self.inside].reshape(self.shape)


# Which of its arguments a CUDA function's workspace is sized by.
WORKSPACES = {
    "norm_statistics": slice(-3, None),
    "interval_norm_relu_bwd_sums": slice(-4, -1),
    "interval_norm_relu_moments_fwd": slice(-4, -1),
    "interval_norm_relu_moments_bwd_sums": slice(-4, -1),
    "singleprop_norm_relu_bwd_sums": slice(-4, -1),
    "interval_margin_bwd": slice(-3, None),
}
PLACES = [
    pytest.param(("cpu", FENCES[1]), id="cpu"),
    *(
        pytest.param((place, width), id=f"{place}-{name}", marks=mark)
        for place, mark in (("cuda", pytest.mark.gpu), ("cuda_on_cpu", pytest.mark.cuda_on_cpu))
        for width, name in zip(FENCES, ("aligned", "misaligned"))
    ),
]


@pytest.fixture(params=PLACES)
def call(request):
    """call(name, dtype, *arguments): arrays become pointers, (shape,) tuples NaN-filled outputs, which are returned."""
    place, width = request.param
    where = "cuda" if place == "cuda" else "cpu"
    module = cuda_on_cpu.load() if place == "cuda_on_cpu" else _C

    def run(name, dtype, *arguments):
        memories, raw = [], []
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                argument = Memory(where, argument, width=width)
            elif isinstance(argument, tuple):
                argument = Memory(where, shape=argument, dtype=dtype, width=width)
                memories.append(argument)
            raw.append(argument)
        pointers = [a.pointer if isinstance(a, Memory) else a for a in raw]
        code = DTYPES.index(dtype)
        if place == "cpu":
            getattr(_C, name)(code, *pointers, 2)
            return [memory.get() for memory in memories]
        if name in WORKSPACES:
            size = getattr(module, f"{name}_workspace")(code, *arguments[WORKSPACES[name]])
            lent = Memory(where, shape=(size,), dtype=np.float64, width=width)
            pointers.append(lent.pointer)
            memories.append(lent)
        stream = torch.cuda.current_stream().cuda_stream if where == "cuda" else 0
        getattr(module, f"{name}_cuda")(code, *pointers, stream, 0)
        results = [memory.get() for memory in memories]
        return results[:-1] if name in WORKSPACES else results

    return run


def eighths(rng, shape, dtype, low=-16, high=17):
    return (rng.integers(low, high, shape) / 8).astype(dtype)


def close(actual, wanted, tolerance):
    assert actual.shape == wanted.shape
    error = np.abs(actual.astype(np.longdouble) - wanted)
    bad = ~(error <= tolerance)  # NaN is bad
    assert not bad.any(), f"{bad.sum()} of {bad.size} wrong, first at {np.argwhere(bad)[0]}"


def wide(*arrays):
    return [None if a is None else a.astype(np.longdouble) for a in arrays]


def map_inputs(shape, streams, dtype):
    rng = np.random.default_rng(sum(shape) + streams)
    outer, channels, inner = shape
    full = (outer, channels, inner)
    return {
        "stack": eighths(rng, (streams, *full), dtype),
        "radius": eighths(rng, full, dtype, 0, 12),
        "scale": rng.choice([-2.0, -0.5, 0.0, 0.25, 1.0, 1.5], channels).astype(dtype),
        "shift": eighths(rng, channels, dtype),
        "grad_stack": rng.standard_normal((streams, *full)).astype(dtype),
        "grad_radius": rng.standard_normal(full).astype(dtype),
        "mul": rng.standard_normal(channels).astype(dtype),
        "add": rng.standard_normal(channels).astype(dtype),
    }


def columns(channels_vector):
    return channels_vector[None, :, None]


def affine(stack, radius, scale, shift):
    if scale is None:
        return stack, radius
    return columns(scale) * stack + columns(shift), abs(columns(scale)) * radius


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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("streams, norm", [(1, True), (2, True), (2, False)])
@pytest.mark.parametrize("slope", [0.0, 0.1, 1.0])
def test_interval_norm_relu_fwd(call, shape, streams, dtype, slope, norm):
    d = map_inputs(shape, streams, dtype)
    scale, shift = (d["scale"], d["shift"]) if norm else (None, None)
    out, out_radius = call(
        "interval_norm_relu_fwd", dtype, d["stack"], d["radius"], *((scale, shift) if norm else (0, 0)),
        d["stack"].shape, d["radius"].shape, streams, *shape, slope,
    )  # fmt: skip
    stack, radius, scale, shift = wide(d["stack"], d["radius"], scale, shift)
    y, r = affine(stack, radius, scale, shift)
    a = np.longdouble(dtype(slope))
    lower, upper = leaky(y[-1] - r, a), leaky(y[-1] + r, a)
    wanted = np.concatenate([leaky(y[:-1], a), (lower + upper)[None] / 2])
    magnitude = affine(abs(stack), radius, *(abs(t) if norm else None for t in (scale, shift)))[0] + r
    close(out, wanted, gamma(8, dtype) * magnitude)
    close(out_radius, (upper - lower) / 2, gamma(8, dtype) * magnitude[-1])
    assert (out_radius >= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("streams, norm", [(1, "affine"), (2, "none"), (2, "affine"), (2, "statistics")])
@pytest.mark.parametrize("slope, radius_grad", [(0.0, True), (0.1, True), (0.1, False)])
def test_interval_norm_relu_bwd(call, shape, streams, dtype, slope, radius_grad, norm):
    d = map_inputs(shape, streams, dtype)
    scale, shift = (d["scale"], d["shift"]) if norm != "none" else (None, None)
    mul, add = (d["mul"], d["add"]) if norm == "statistics" else (None, None)
    out, out_radius = call(
        "interval_norm_relu_bwd", dtype, d["grad_stack"], d["grad_radius"] if radius_grad else 0, d["stack"],
        d["radius"], *(0 if t is None else t for t in (scale, shift, mul, add)),
        d["stack"].shape, d["radius"].shape, streams, *shape, slope,
    )  # fmt: skip
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("slope, radius_grad", [(0.0, True), (0.1, True), (0.1, False)])
def test_interval_norm_relu_bwd_sums(call, shape, streams, dtype, slope, radius_grad):
    d = map_inputs(shape, streams, dtype)
    channels = (shape[1],)
    sum_scale, sum_shift = call(
        "interval_norm_relu_bwd_sums", dtype, d["grad_stack"], d["grad_radius"] if radius_grad else 0, d["stack"],
        d["radius"], d["scale"], d["shift"], channels, channels, streams, *shape, slope,
    )  # fmt: skip
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("streams, norm", [(1, True), (2, True), (2, False)])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_interval_norm_relu_moments_fwd(call, shape, streams, dtype, norm, offset):
    """Far from zero too: a spread made of float32 sums would lose all its digits there."""
    d = map_inputs(shape, streams, dtype)
    d["stack"] += dtype(0 if norm else offset)
    d["shift"] += dtype(offset)
    pointers = (d["scale"], d["shift"]) if norm else (0, 0)
    inputs, sizes = (d["stack"], d["radius"], *pointers), (d["stack"].shape, d["radius"].shape)
    out, out_radius, moments = call(
        "interval_norm_relu_moments_fwd", dtype, *inputs, *sizes, (8,), streams, *shape, 0.0
    )
    alone, alone_radius = call("interval_norm_relu_fwd", dtype, *inputs, *sizes, streams, *shape, 0.0)
    assert np.array_equal(out, alone) and np.array_equal(out_radius, alone_radius)
    stack, radius, *channels = wide(d["stack"], d["radius"], *((d["scale"], d["shift"]) if norm else (None, None)))
    y, r = affine(stack, radius, *channels)
    wanted, magnitudes = moments_of(y[-1], r)
    # Multiples of 1/64 below 2^11: float32 has them exactly, so that only sums in double and the result are rounded.
    rounded = gamma(d["radius"].size + 8, np.float64) * magnitudes + gamma(1, dtype) * abs(wanted)
    close(moments, wanted, rounded)
    assert (moments[[0, 2, 3, 6, 7]] >= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("streams, norm, radius_grad", [(1, True, True), (2, True, False), (2, False, True)])
def test_interval_norm_relu_moments_bwd(call, shape, streams, dtype, norm, radius_grad):
    """Both passes: the gradient of the moments is added to the one behind the gate."""
    d = map_inputs(shape, streams, dtype)
    scale, shift = (d["scale"], d["shift"]) if norm else (None, None)
    stack, radius, *channels = wide(d["stack"], d["radius"], scale, shift)
    y, r = affine(stack, radius, *channels)
    moments = moments_of(y[-1], r)[0].astype(dtype)
    grad_moments = np.random.default_rng(5).standard_normal(8).astype(dtype)
    more = np.random.default_rng(6).standard_normal((2, shape[1])).astype(dtype)
    statistics = norm and streams == 2
    grads = (d["grad_stack"], d["grad_radius"] if radius_grad else 0, grad_moments, moments)
    inputs = (d["stack"], d["radius"], *(0 if t is None else t for t in (scale, shift)))
    out, out_radius = call(
        "interval_norm_relu_moments_bwd", dtype, *grads, *inputs, *((more[0], more[1]) if statistics else (0, 0)),
        d["stack"].shape, d["radius"].shape, streams, *shape, 0.1,
    )  # fmt: skip
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
        sums = call(
            "interval_norm_relu_moments_bwd_sums", dtype, *grads, *inputs,
            (shape[1],), (shape[1],), streams, *shape, 0.1,
        )  # fmt: skip
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


def singleprop_inputs(shape, dtype):
    """As for intervals, with one stream: z, v, scale, shift, the two gradients, mul and add."""
    d = map_inputs(shape, 1, dtype)
    names = ("stack", "radius", "scale", "shift", "grad_stack", "grad_radius", "mul", "add")
    return [d[name][0] if name.endswith("stack") else d[name] for name in names]


def singleprop_radius(z, v, activation):
    """The radius behind the ReLU and its slopes in z and v; a kink counts as inside its linear piece."""
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_singleprop_norm_relu_fwd(call, shape, dtype, norm, activation):
    z, v, scale, shift = singleprop_inputs(shape, dtype)[:4]
    out, out_radius = call(
        "singleprop_norm_relu_fwd", dtype, z, v, *((scale, shift) if norm else (0, 0)), shape, shape, *shape,
        ACTIVATIONS.index(activation),
    )  # fmt: skip
    z, v, scale, shift = wide(z, v, scale, shift)
    y, r = affine(z, v, *((scale, shift) if norm else (None, None)))
    magnitude = abs(y) + r
    wanted, wanted_radius = (y, r) if activation == "none" else (y.clip(0), singleprop_radius(y, r, activation)[0])
    close(out, wanted, gamma(8, dtype) * magnitude)
    close(out_radius, wanted_radius, gamma(16, dtype) * magnitude)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", ["none", "affine", "statistics"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_singleprop_norm_relu_bwd(call, shape, dtype, norm, activation):
    z, v, scale, shift, g, gr, mul, add = singleprop_inputs(shape, dtype)
    scale, shift = (None, None) if norm == "none" else (scale, shift)
    mul, add = (mul, add) if norm == "statistics" else (None, None)
    out, out_radius = call(
        "singleprop_norm_relu_bwd", dtype, g, gr, z, v, *(0 if t is None else t for t in (scale, shift, mul, add)),
        shape, shape, *shape, ACTIVATIONS.index(activation),
    )  # fmt: skip
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_singleprop_norm_relu_bwd_sums(call, shape, dtype, activation):
    z, v, scale, shift, g, gr = singleprop_inputs(shape, dtype)[:6]
    channels = (shape[1],)
    sum_scale, sum_shift = call(
        "singleprop_norm_relu_bwd_sums", dtype, g, gr, z, v, scale, shift, channels, channels, *shape,
        ACTIVATIONS.index(activation),
    )  # fmt: skip
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", NON_EMPTY, ids=str)
@pytest.mark.parametrize("center", [0.0, 1000.0])
def test_norm_statistics(call, shape, dtype, center):
    rng = np.random.default_rng(sum(shape))
    x = (center + rng.standard_normal(shape)).astype(dtype)
    mean, var = call("norm_statistics", dtype, x, (shape[1],), (shape[1],), *shape)
    (exact,) = wide(x)
    wanted_mean = exact.mean((0, 2))
    wanted_var = ((exact - columns(wanted_mean)) ** 2).mean((0, 2))
    from_first = exact - exact[:1, :, :1]
    summed = gamma(shape[0] * shape[2] + 8, np.float64)
    rounded = gamma(1, dtype)
    close(mean, wanted_mean, rounded * abs(wanted_mean) + summed * (abs(from_first).mean((0, 2)) + abs(center)))
    close(var, wanted_var, rounded * wanted_var + summed * 2 * (from_first**2).mean((0, 2)))
    assert (var >= 0).all()


def margin_inputs(sizes, dtype):
    batch, features, classes = sizes
    rng = np.random.default_rng(sum(sizes))
    return {
        "radius": rng.random((batch, features)).astype(dtype),
        "weight": eighths(rng, (classes, features), dtype, -3, 4),  # equal entries occur often
        "labels": rng.integers(0, classes, batch),
        "grad": rng.standard_normal((batch, classes - 1)).astype(dtype),
    }


def differences(d):
    """[B, K-1, D]: row of the label minus each other row, in increasing order of the class."""
    weight = d["weight"].astype(np.longdouble)
    rows = [weight[y] - np.delete(weight, y, 0) for y in d["labels"]]
    return np.stack(rows) if rows else np.zeros((0, len(weight) - 1, weight.shape[1]), np.longdouble)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", MARGINS, ids=str)
def test_interval_margin_fwd(call, sizes, dtype):
    d = margin_inputs(sizes, dtype)
    (out,) = call("interval_margin_fwd", dtype, d["radius"], d["weight"], d["labels"], d["grad"].shape, *sizes)
    wanted = (abs(differences(d)) * d["radius"][:, None]).sum(2)
    close(out, wanted, gamma(sizes[1] + 2, dtype) * wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", MARGINS, ids=str)
@pytest.mark.parametrize("needs", ["both", "radius", "weight"])
def test_interval_margin_bwd(call, sizes, dtype, needs):
    d = margin_inputs(sizes, dtype)
    outputs = [d["radius"].shape if needs != "weight" else 0, d["weight"].shape if needs != "radius" else 0]
    result = call("interval_margin_bwd", dtype, d["grad"], d["radius"], d["weight"], d["labels"], *outputs, *sizes)
    batch, _, classes = sizes
    grad, radius = wide(d["grad"], d["radius"])
    delta = differences(d)
    if needs != "weight":
        wanted = (grad[:, :, None] * abs(delta)).sum(1)
        close(result.pop(0), wanted, gamma(classes + 3, dtype) * (abs(grad)[:, :, None] * abs(delta)).sum(1))
    if needs != "radius":
        wanted, magnitude = np.zeros_like(delta, shape=d["weight"].shape), np.zeros_like(delta, shape=d["weight"].shape)
        for b, label in enumerate(d["labels"]):
            for i, other in enumerate(k for k in range(classes) if k != label):
                term = grad[b, i] * np.sign(delta[b, i]) * radius[b]
                wanted[label] += term
                wanted[other] -= term
                magnitude[label] += abs(term)
                magnitude[other] += abs(term)
        close(result.pop(0), wanted, gamma(batch * classes + 4, dtype) * magnitude)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [0, 1, 7, 1000, 40003])
def test_signed_weight_grad(call, n, dtype):
    rng = np.random.default_rng(n)
    grad, grad_abs = rng.standard_normal((2, n)).astype(dtype)
    weight = eighths(rng, n, dtype, -2, 3)
    (out,) = call("signed_weight_grad", dtype, (n,), grad, grad_abs, weight, n)
    wanted = grad + np.sign(weight) * grad_abs.astype(np.longdouble)
    close(out, wanted, gamma(2, dtype) * (abs(grad) + abs(grad_abs)))


def test_signed_weight_grad_in_place():
    grad, grad_abs, weight = (torch.randn(40003) for _ in range(3))
    wanted = grad + weight.sign() * grad_abs
    pointers = (t.data_ptr() for t in (grad, grad, grad_abs, weight))
    _C.signed_weight_grad(0, *pointers, 40003, 2)
    assert torch.equal(grad, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 100, 32), (4, 33, 50), (1, 5, 7), (2, 1, 40), (0, 3, 4), (2, 0, 4)])
def test_swap_axes(dtype, shape):
    rng = np.random.default_rng(5)
    x = rng.standard_normal(shape).astype(dtype)
    source, target = Memory("cpu", x), Memory("cpu", shape=(shape[0], shape[2], shape[1]), dtype=dtype)
    _C.swap_axes(DTYPES.index(dtype), source.pointer, target.pointer, *shape, 2)
    assert (target.get() == x.swapaxes(1, 2)).all()


ISAS = ["base", "avx2", "avx512"]


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set(isa):
    if "FASTBOUND_ISA" in os.environ:
        pytest.skip("already inside a run with a chosen instruction set")
    if isa == _C.isa:
        return  # this very run
    if ISAS.index(isa) > ISAS.index(_C.isa):
        pytest.skip(f"this processor has no {isa}")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-m",
        "not gpu and not cuda_on_cpu",
        "-k",
        "not float64",
        __file__,
        str(Path(__file__).with_name("test_native_bfloat16.py")),
    ]
    done = subprocess.run(
        command, env={**os.environ, "FASTBOUND_ISA": isa, "OMP_WAIT_POLICY": "passive"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


ELEMENTWISE = """
import numpy as np
from fastbound import _C
rng = np.random.default_rng(0)
stack, radius = rng.standard_normal((2, 50, 37)).astype("f4"), rng.random((50, 37)).astype("f4")
scale, shift = rng.standard_normal((2, 37)).astype("f4")
out, out_radius = np.empty_like(stack), np.empty_like(radius)
p = [a.ctypes.data for a in (stack, radius, scale, shift, out, out_radius)]
_C.interval_norm_relu_fwd(0, *p, 2, 50, 37, 1, 0.1, 1)
print(_C.isa, out.tobytes().hex(), out_radius.tobytes().hex())
"""


def test_instruction_sets_agree_to_the_bit():
    seen = {}
    for isa in ISAS:
        environment = {**os.environ, "FASTBOUND_ISA": isa}
        done = subprocess.run([sys.executable, "-c", ELEMENTWISE], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        used, *values = done.stdout.split()
        assert ISAS.index(used) <= ISAS.index(isa)
        seen[used] = hashlib.sha256("".join(values).encode()).hexdigest()
    assert "base" in seen
    assert len(set(seen.values())) == 1, seen


def test_unknown_instruction_set_is_refused():
    environment = {**os.environ, "FASTBOUND_ISA": "sse9"}
    done = subprocess.run([sys.executable, "-c", ELEMENTWISE], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "FASTBOUND_ISA must be base, avx2 or avx512, got 'sse9'" in done.stderr


@pytest.mark.parametrize("name", ["fwd", "bwd", "bwd_sums", "statistics", "margin_bwd"])
def test_threads_and_repetition(name):
    """A call repeats to the bit; with another number of threads only the order of a map's sums may change."""
    shape, sizes = (900, 30, 1), (64, 700, 10)
    d, m = map_inputs(shape, 2, np.float32), margin_inputs(sizes, np.float32)
    stack, full, channels = d["stack"].shape, shape, (shape[1],)
    layer = [d["stack"], d["radius"], d["scale"], d["shift"]]
    grads = [d["grad_stack"], d["grad_radius"]]
    function, inputs, outputs, rest = {
        "fwd": (_C.interval_norm_relu_fwd, layer, [stack, full], (2, *shape, 0.1)),
        "bwd": (_C.interval_norm_relu_bwd, [*grads, *layer, d["mul"], d["add"]], [stack, full], (2, *shape, 0.1)),
        "bwd_sums": (_C.interval_norm_relu_bwd_sums, [*grads, *layer], [channels, channels], (2, *shape, 0.1)),
        "statistics": (_C.norm_statistics, [d["grad_radius"]], [channels, channels], shape),
        "margin_bwd": (
            _C.interval_margin_bwd,
            [m["grad"], m["radius"], m["weight"], m["labels"]],
            [m["radius"].shape, m["weight"].shape],
            sizes,
        ),
    }[name]

    def run(threads):
        into = [Memory("cpu", shape=s, dtype=np.float32) for s in outputs]
        memories = [*(Memory("cpu", a) for a in inputs), *into]
        function(0, *(memory.pointer for memory in memories), *rest, threads)
        return [memory.get() for memory in into]

    one, two, again, many = run(1), run(2), run(2), run(7)
    for a, b, c, e in zip(one, two, again, many):
        assert b.tobytes() == c.tobytes()
        if name in ("bwd_sums", "statistics"):
            close(a, b, 1e-4)
            close(a, e, 1e-4)
        else:
            assert a.tobytes() == b.tobytes() == e.tobytes()


def test_nan_is_never_hidden(call):
    nan = np.float32("nan")
    stack, radius = np.ones((2, 4, 1, 1), np.float32), np.ones((4, 1, 1), np.float32)
    stack[0, 0], stack[1, 1], radius[2] = nan, nan, nan
    out, out_radius = call(
        "interval_norm_relu_fwd", np.float32, stack, radius, 0, 0, stack.shape, radius.shape, 2, 4, 1, 1, 0.0
    )
    assert np.isnan(out[..., 0, 0]).tolist() == [[True, False, False, False], [False, True, True, False]]
    assert np.isnan(out_radius[:, 0, 0]).tolist() == [False, True, True, False]
    _, var = call("norm_statistics", np.float32, radius, (1,), (1,), 4, 1, 1)
    assert np.isnan(var).all()


P = 64  # an address that is never read: every one of these calls is refused first


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("interval_norm_relu_fwd", (2, P, P, 0, 0, P, P, 2, 1, 1, 1, 0.0, 1), r"dtype must be 0 .* or 3 .*, got 2"),
        ("swap_axes", (3, P, P, 1, 1, 1, 1), r"dtype must be 0 .* or 1 .*, got 3"),
        ("interval_norm_relu_fwd", (0, 0, P, 0, 0, P, P, 2, 1, 1, 1, 0.0, 1), "stack is a null pointer"),
        ("interval_norm_relu_fwd", (0, P, P, P, 0, P, P, 2, 1, 1, 1, 0.0, 1), "scale and shift must be given together"),
        ("interval_norm_relu_fwd", (0, P, P, 0, 0, P, P, 3, 1, 1, 1, 0.0, 1), "streams must be 1"),
        ("interval_norm_relu_fwd", (0, P, P, 0, 0, P, P, 2, -1, 1, 1, 0.0, 1), "outer must not be negative, got -1"),
        ("interval_norm_relu_fwd", (0, P, P, 0, 0, P, P, 2, 1, 1, 1, -0.1, 1), "slope must lie in"),
        ("interval_norm_relu_fwd", (0, P, P, 0, 0, P, P, 2, 1, 1, 1, float("nan"), 1), "slope must lie in"),
        ("interval_norm_relu_fwd", (0, P, P, 0, 0, P, P, 2, 1, 1, 1, 0.0, 0), "threads must be at least 1, got 0"),
        ("interval_norm_relu_bwd", (0, P, P, P, P, 0, 0, P, P, P, P, 2, 1, 1, 1, 0.0, 1), "nominal_mul needs scale"),
        ("interval_norm_relu_bwd", (0, P, P, P, P, P, P, P, P, P, P, 1, 1, 1, 1, 0.0, 1), "nominal_mul needs scale"),
        ("interval_norm_relu_bwd_sums", (0, P, P, P, P, 0, P, P, P, 2, 1, 1, 1, 0.0, 1), "scale is a null pointer"),
        ("singleprop_norm_relu_fwd", (0, P, 0, 0, 0, P, P, 1, 1, 1, 1, 1), "radius is a null pointer"),
        ("singleprop_norm_relu_fwd", (0, P, P, 0, 0, P, P, 1, 1, 1, 3, 1), "activation must be 0"),
        ("singleprop_norm_relu_bwd", (0, P, P, P, P, 0, 0, P, P, P, P, 1, 1, 1, 1, 1), "nominal_mul needs scale"),
        ("singleprop_norm_relu_bwd_sums", (0, P, P, P, P, P, 0, P, P, 1, 1, 1, 1, 1), "shift is a null pointer"),
        ("norm_statistics", (0, P, P, P, 0, 3, 1, 1), "at least one value per channel"),
        ("interval_margin_fwd", (0, P, P, P, P, 1, 1, 0, 1), "classes must be at least 1"),
        ("interval_margin_bwd", (0, P, 0, P, P, P, P, 1, 1, 2, 1), "radius is a null pointer"),
        ("signed_weight_grad", (0, P, P, P, P, -5, 1), "n must not be negative, got -5"),
    ],
)
def test_refusals(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(_C, name)(*arguments)


@pytest.mark.parametrize("label", [-1, 3])
def test_label_out_of_range(label):
    labels = np.array([0, label])
    with pytest.raises(ValueError, match=rf"labels\[1\] must lie in \[0, 3\), got {label}"):
        _C.interval_margin_fwd(0, P, P, labels.ctypes.data, P, 2, 1, 3, 1)
    with pytest.raises(ValueError, match=rf"labels\[1\] must lie in \[0, 3\), got {label}"):
        _C.interval_margin_bwd(0, P, P, P, labels.ctypes.data, P, P, 2, 1, 3, 1)
