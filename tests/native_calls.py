"""Calls of fastbound._C on fenced memory, and helpers to compare them with a computation in wider numbers.

Values, scales and shifts are small multiples of 1/8: every gate is then decided exactly in both precisions, and kinks
(lower == 0, upper == 0, value == 0), zero scales and equal weights occur often. Inputs are fenced by NaN, outputs
filled with NaN and fenced by a mark. Tolerances are gamma(n) = n u / (1 - n u) times the magnitudes that were added.
"""

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


# The arguments of each CUDA function that give the size of its workspace.
WORKSPACES = {
    "norm_statistics": slice(-3, None),
    "interval_norm_relu_bwd_sums": slice(-4, -1),
    "interval_norm_relu_moments_fwd": slice(-4, -1),
    "interval_norm_relu_moments_bwd_sums": slice(-4, -1),
    "singleprop_norm_relu_bwd_sums": slice(-4, -1),
    "interval_margin_bwd": slice(-3, None),
}


def caller(place, width):
    """call(name, dtype, *arguments): arrays become pointers, (shape,) tuples NaN-filled outputs, which are returned."""
    where = "cuda" if place == "cuda" else "cpu"

    def call(name, dtype, *arguments):
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
        module = cuda_on_cpu.load() if place == "cuda_on_cpu" else _C
        if name in WORKSPACES:
            size = getattr(module, f"{name}_workspace")(code, *arguments[WORKSPACES[name]])
            lent = Memory(where, shape=(size,), dtype=np.float64, width=width)
            pointers.append(lent.pointer)
            memories.append(lent)
        stream = torch.cuda.current_stream().cuda_stream if where == "cuda" else 0
        getattr(module, f"{name}_cuda")(code, *pointers, stream, 0)
        results = [memory.get() for memory in memories]
        return results[:-1] if name in WORKSPACES else results

    return call


every_place = pytest.mark.parametrize(
    "call",
    [
        pytest.param(caller("cpu", FENCES[1]), id="cpu"),
        *(
            pytest.param(caller(place, width), id=f"{place}-{name}", marks=mark)
            for place, mark in (("cuda", pytest.mark.gpu), ("cuda_on_cpu", pytest.mark.cuda_on_cpu))
            for width, name in zip(FENCES, ("aligned", "misaligned"))
        ),
    ],
)


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


def margin_inputs(sizes, dtype):
    batch, features, classes = sizes
    rng = np.random.default_rng(sum(sizes))
    return {
        "radius": rng.random((batch, features)).astype(dtype),
        "weight": eighths(rng, (classes, features), dtype, -3, 4),  # equal entries occur often
        "labels": rng.integers(0, classes, batch),
        "grad": rng.standard_normal((batch, classes - 1)).astype(dtype),
    }
