"""The convolutions of CNN-7: cuDNN with and without its search for an algorithm, against Triton; all values checked.

A row is one call of `interval_conv2d`, forward or backward, on channels_last maps. `error` is the distance to float64
over the norm of the result, `share of ceiling` that of a large matrix product measured in the same run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import fastbound as fb
from bench.gpu import ceilings
from bench.gpu.record import Record, first_line, parser
from bench.gpu.timing import time_kernel
from fastbound import backends
from fastbound.errors import BackendError
from fastbound.reference import interval_conv2d as exact

COLUMNS = ("shape", "direction", "precision", "code", "ms", "TFLOP/s", "share of ceiling", "error", "allowed")
# Rounding a result to bfloat16 is off by 2^-9 of it, and a weight's gradient is the sum of two such; cutting both
# operands to the 10 bits of TF32 is off by 2^-9 at most. Sums in float32 are exact in comparison.
ALLOWED = {"bf16": 2.0**-7, "tf32": 2.0**-9, "ieee": 2.0**-16}
CODES = ("library", "library, search", "triton")
BACKENDS = {"library": "native", "library, search": "native", "triton": "triton"}


@dataclass(frozen=True)
class Shape:
    """A 3x3 convolution with padding 1: maps [batch, channels, side, side] to `outputs` channels."""

    batch: int
    channels: int
    side: int
    outputs: int
    stride: int

    def __str__(self) -> str:
        return f"{self.batch} x {self.channels} x {self.side} x {self.side} -> {self.outputs}, 3x3/{self.stride}"

    @property
    def geometry(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
        return (self.stride, self.stride), (1, 1), (1, 1), 1

    @property
    def multiplications(self) -> int:
        return self.batch * self.outputs * (self.side // self.stride) ** 2 * self.channels * 9

    def tensors(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Gradients of both outputs, stack [2, B, C, H, W], radius, weight, bias."""
        reached = self.side // self.stride

        def maps(streams: int, channels: int, side: int) -> Tensor:
            made = torch.randn(streams * self.batch, channels, side, side, device=device).to(dtype)
            return made.contiguous(memory_format=torch.channels_last).unflatten(0, (streams, self.batch))

        grad, grad_radius = maps(2, self.outputs, reached), maps(1, self.outputs, reached)[0]
        stack, radius = maps(2, self.channels, self.side), maps(1, self.channels, self.side)[0].abs()
        weight = torch.randn(self.outputs, self.channels, 3, 3, device=device).to(dtype)
        return grad, grad_radius, stack, radius, weight, torch.randn(self.outputs, device=device).to(dtype)


FULL = (
    Shape(128, 3, 32, 64, 1),
    Shape(128, 64, 32, 64, 1),
    Shape(128, 64, 32, 128, 2),
    Shape(128, 128, 16, 128, 1),
    Shape(512, 128, 16, 128, 1),
)
SMALL = (Shape(2, 3, 6, 4, 1), Shape(2, 4, 6, 6, 2))


def main(arguments: list[str] | None = None) -> int:
    options = parser(__doc__, seconds=240)
    options.add_argument("--rounds", type=int, default=30)
    options.add_argument("--precision", action="append", choices=tuple(ALLOWED), help="bf16 and tf32 by default")
    chosen = options.parse_args(arguments)
    record = Record("convolutions", chosen)
    with record.interruptible():
        record.content["ceilings"] = ceilings.measure(record.device, chosen.small)
        for precision in chosen.precision or ("bf16", "tf32"):
            for shape in SMALL if chosen.small else FULL:
                _measure(record, shape, precision, chosen.rounds)
    record.headline = _headline(record)
    return record.finish(COLUMNS)


def _measure(record: Record, shape: Shape, precision: str, rounds: int) -> None:
    names = {
        (direction, code): f"{shape}, {direction}, {precision}, {code}"
        for direction in ("forward", "backward")
        for code in CODES
    }
    names = {key: name for key, name in names.items() if record.wants(name)}
    if not names:
        return
    with ceilings.products_in(precision) as dtype:
        sets = [shape.tensors(record.device, dtype) for _ in range(2)]
        exactly = [t.double() for t in sets[0]]
        wanted = {direction: CALLS[direction](exact, shape, exactly) for direction in {way for way, _ in names}}
        for (direction, code), name in names.items():
            if not record.has_time(name):
                continue
            try:
                row = _row(record, shape, direction, precision, code, sets, wanted[direction], rounds)
            except (BackendError, torch.OutOfMemoryError) as reason:
                record.not_available[name] = first_line(reason)
            except Exception as problem:  # the other convolutions are still worth measuring
                record.fail(name, problem)
            else:
                record.rows.append(row)
                if not row["error"] <= row["allowed"]:
                    record.failed[name] = f"off by {row['error']:.2g} of the norm, {row['allowed']:.2g} is allowed"


def _row(
    record: Record,
    shape: Shape,
    direction: str,
    precision: str,
    code: str,
    sets: list[tuple[Tensor, ...]],
    wanted: list[Tensor],
    rounds: int,
) -> dict[str, Any]:
    call = CALLS[direction]

    def measured() -> tuple[float, float]:
        with _searching(code.endswith("search")), fb.use_backend(BACKENDS[code]):
            module = backends.find("interval_conv2d", sets[0][2])
            pairs = zip(call(module, shape, sets[0]), wanted, strict=True)
            error = max(_distance(found, right) for found, right in pairs)
            works = [lambda t=tensors: call(module, shape, t) for tensors in sets]
            return error, 1e-3 * time_kernel(works, record.device, rounds).median_ms

    # torch caches cuDNN's plans by shape and thread, however they were chosen: a new thread has none.
    with ThreadPoolExecutor(1) as fresh:
        error, seconds = fresh.submit(measured).result()
    rate = 2 * PRODUCTS[direction] * shape.multiplications / seconds
    return {
        "shape": str(shape),
        "direction": direction,
        "precision": precision,
        "code": code,
        "ms": 1e3 * seconds,
        "TFLOP/s": 1e-12 * rate,
        "share of ceiling": rate / record.content["ceilings"]["matrix_flop_per_s"][precision],
        "error": error,
        "allowed": ALLOWED[precision],
    }


def _forward(code: ModuleType, shape: Shape, tensors: tuple[Tensor, ...] | list[Tensor]) -> list[Tensor]:
    return list(code.interval_conv2d_fwd(*tensors[2:], *shape.geometry))


def _backward(code: ModuleType, shape: Shape, tensors: tuple[Tensor, ...] | list[Tensor]) -> list[Tensor]:
    return list(code.interval_conv2d_bwd(*tensors[:5], *shape.geometry, (True, True, True, True)))


CALLS: dict[str, Callable[..., list[Tensor]]] = {"forward": _forward, "backward": _backward}
PRODUCTS = {"forward": 3, "backward": 6}


def _distance(found: Tensor, right: Tensor) -> float:
    return float((found.double() - right).norm() / right.norm())


@contextmanager
def _searching(on: bool) -> Iterator[None]:
    """cuDNN's search for the fastest algorithm of a shape, in its first call."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = on
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _headline(record: Record) -> str:
    """How often each code was fastest, and whether all values were right."""
    best: dict[tuple[object, ...], dict[str, object]] = {}
    for row in record.rows:
        key = (row["shape"], row["direction"], row["precision"])
        if key not in best or row["ms"] < best[key]["ms"]:
            best[key] = row
    wins = {code: sum(row["code"] == code for row in best.values()) for code in CODES}
    wrong = sum(not row["error"] <= row["allowed"] for row in record.rows)
    told = ", ".join(f"{code} {count}" for code, count in wins.items())
    return f"fastest of {len(best)} calls: {told}; {f'{wrong} WRONG' if wrong else 'all values right'}"


if __name__ == "__main__":
    sys.exit(main())
