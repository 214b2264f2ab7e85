"""Calls of fastbound._C on fenced memory, and helpers to compare them with a computation in wider numbers.

Values, scales and shifts are small multiples of 1/8: every gate is then decided exactly in both precisions, and kinks
(lower == 0, upper == 0, value == 0), zero scales and equal weights occur often. Inputs are fenced by NaN, outputs
filled with NaN and fenced by a mark. Tolerances are gamma(n) = n u / (1 - n u) times the magnitudes that were added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from cuda_on_cpu import build as cuda_on_cpu
from torch import Tensor

from fastbound import _C
from fastbound.native import HALVES

# Elements on each side of a tensor. The first keeps it aligned to 16 bytes, so that CUDA code reads it in packs.
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


def size_of(text: str, numbers: dict[str, Any]) -> int:
    """A size as `_C.passes` writes it: an earlier argument, or an expression of one."""
    return numbers[text] if text in numbers else eval(text, {}, numbers)


def shape_of(field: dict[str, Any], numbers: dict[str, Any]) -> list[int]:
    return [size_of(text, numbers) for text in field["shape"]]


def bits(x: Tensor) -> Tensor:
    return x.view(torch.uint8)


class Fenced:
    """A tensor within a buffer that is longer on both sides."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, where: str, width: int, fence: float) -> None:
        count = math.prod(shape)
        self.buffer = torch.full((count + 2 * width,), fence, dtype=dtype, device=where)
        self.tensor = self.buffer[width : width + count].view(*shape)
        self.fences = (self.buffer[:width], self.buffer[width + count :])

    @classmethod
    def input(cls, values: Tensor, where: str, width: int) -> Fenced:
        fenced = cls(values.shape, values.dtype, where, width, float("nan") if values.is_floating_point() else 2**62)
        fenced.tensor.copy_(values)
        return fenced

    @classmethod
    def output(cls, shape: Sequence[int], dtype: torch.dtype, where: str, width: int) -> Fenced:
        fenced = cls(shape, dtype, where, width, MARK)
        fenced.tensor.fill_(float("nan"))
        return fenced

    def written(self, name: str) -> Tensor:
        mark = torch.tensor(MARK, dtype=self.buffer.dtype, device=self.buffer.device)
        assert all((fence == mark).all() for fence in self.fences), f"wrote outside {name}"
        return self.tensor.cpu()


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(
    name: str,
    *arguments: int | float | Tensor | None,  # as the pass takes them, without its outputs
    without: Sequence[str] = (),
    width: int = FENCES[1],
    where: str = "cpu",
    threads: int = 2,
    module: Any = _C,
) -> list[Tensor]:
    """The outputs of a pass, except those in ``without``, which are None in the call."""
    fields = module.passes[name]
    outputs = [field for field in fields if field["kind"] == "out"]
    assert len(arguments) == len(fields) - len(outputs), f"{name} has other inputs: {getattr(module, name).__doc__}"
    numbers = {field["name"]: a for field, a in zip(fields, arguments) if not isinstance(a, Tensor)}
    stored = next(a.dtype for a in arguments if isinstance(a, Tensor))
    dtypes = {"stored": stored, "computed": torch.float32 if stored in HALVES else stored}
    given = [Fenced.input(a, where, width) if isinstance(a, Tensor) else a for a in arguments]
    read = [fenced.buffer for fenced in given if isinstance(fenced, Fenced)]
    before = [bits(buffer).clone() for buffer in read]
    made = {
        field["name"]: Fenced.output(shape_of(field, numbers), dtypes[field["element"]], where, width)
        for field in outputs
        if field["name"] not in without
    }
    taken = [*given, *(made.get(field["name"]) for field in outputs)]
    with on_threads(threads):  # and nothing else: idle ones wait for work at full speed
        getattr(module, name)(*(a.tensor if isinstance(a, Fenced) else a for a in taken))
    assert all(map(torch.equal, before, map(bits, read))), f"{name} wrote to an input"
    return [fenced.written(output) for output, fenced in made.items()]


def caller(place: str, width: int) -> Callable[..., list[np.ndarray]]:
    """call(name, *arguments, without=()): `run` in one of three places, for arrays of numpy."""

    def call(name, *arguments, without=()):
        module = cuda_on_cpu.load() if place == "cuda_on_cpu" else _C
        tensors = [torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in arguments]
        where = "cuda" if place == "cuda" else "cpu"
        made = run(name, *tensors, without=without, width=width, where=where, module=module)
        return [tensor.numpy() for tensor in made]

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
