"""The calls of the kernel suite that multiply, forward and backward, and power iterations, which read W many times."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from bench.gpu.case import Case, Maker, Sizes, Tensors


def product_cases(sizes: Sizes) -> list[Case]:
    found = _power(sizes)
    for batch in sizes.batches:
        found += [*_linear(sizes, batch), *_conv2d(sizes, batch), *_crown_products(sizes, batch)]
    return found


def _linear(sizes: Sizes, batch: int) -> list[Case]:
    inputs, outputs = 2 * sizes.width * (sizes.side // 2) ** 2, sizes.features
    multiplications = batch * inputs * outputs
    name = f"{batch} x {inputs} -> {outputs}"

    def forward(m: Maker) -> Tensors:
        return m.normal(2, batch, inputs), m.positive(batch, inputs), m.normal(outputs, inputs), m.normal(outputs)

    def backward(m: Maker) -> Tensors:
        return m.normal(2, batch, outputs), m.normal(batch, outputs), *forward(m)[:3]

    stem, needs = "interval_linear", (True, True, True, True)
    run, run_back = (
        lambda code, t: code.interval_linear_fwd(*t),
        lambda code, t: code.interval_linear_bwd(*t, needs),
    )
    return [
        Case(stem, f"forward, {name}", forward, run, products=3, multiplications=multiplications),
        Case(stem, f"backward, {name}", backward, run_back, products=6, multiplications=multiplications),
    ]


def _layers(sizes: Sizes) -> list[tuple[int, int, int, int]]:
    """(channels, outputs, side of the input, stride) of the convolutions of CNN-7 after its first."""
    width, side = sizes.width, sizes.side
    return [(width, width, side, 1), (width, 2 * width, side, 2), (2 * width, 2 * width, side // 2, 1)]


def _conv2d(sizes: Sizes, batch: int) -> list[Case]:
    found = []
    for channels, outputs, side, stride in _layers(sizes):
        reached = side // stride
        geometry = ((stride, stride), (1, 1), (1, 1), 1)

        def forward(m: Maker, c: int = channels, o: int = outputs, s: int = side) -> Tensors:
            streams = m.maps(2, batch, c, s, s, channels_last=True)
            return streams, torch.rand_like(streams[0]), m.normal(o, c, 3, 3), m.normal(o)

        def backward(
            m: Maker, o: int = outputs, r: int = reached, forward: Callable[[Maker], Tensors] = forward
        ) -> Tensors:
            grad = m.maps(2, batch, o, r, r, channels_last=True)
            return grad, torch.randn_like(grad[0]), *forward(m)[:3]

        def run(code: ModuleType, t: Tensors, geometry: Any = geometry) -> Any:
            return code.interval_conv2d_fwd(*t, *geometry)

        def run_back(code: ModuleType, t: Tensors, geometry: Any = geometry) -> Any:
            return code.interval_conv2d_bwd(*t, *geometry, (True, True, True, True))

        name = f"{batch} x {channels} x {side} x {side} -> {outputs}, 3x3/{stride}"
        count = batch * outputs * reached**2 * channels * 9
        found += [
            Case("interval_conv2d", f"forward, {name}", forward, run, products=3, multiplications=count),
            Case("interval_conv2d", f"backward, {name}", backward, run_back, products=6, multiplications=count),
        ]
    return found


def _power(sizes: Sizes) -> list[Case]:
    """Five iterations of one sample, which read W at least twice each."""
    stem, iterations = "lipschitz_power", 5
    found = []
    for inputs, outputs in ((2 * sizes.width * (sizes.side // 2) ** 2, sizes.features), (sizes.features, 10)):

        def linear(m: Maker, i: int = inputs, o: int = outputs) -> Tensors:
            return m.normal(1, i), m.normal(o, i)

        def run_linear(code: ModuleType, t: Tensors) -> Any:
            return code.lipschitz_power_fwd(*t, iterations, (), (), (), 1)

        found.append(Case(stem, f"forward, {inputs} -> {outputs}", linear, run_linear, passes=2 * iterations))
    for channels, outputs, side, stride in _layers(sizes):

        def conv2d(m: Maker, c: int = channels, o: int = outputs, s: int = side) -> Tensors:
            return m.normal(1, c, s, s), m.normal(o, c, 3, 3)

        def run_conv2d(code: ModuleType, t: Tensors, stride: int = stride) -> Any:
            return code.lipschitz_power_fwd(*t, iterations, (stride, stride), (1, 1), (1, 1), 1)

        name = f"forward, {channels} x {side} x {side} -> {outputs}, 3x3/{stride}"
        found.append(Case(stem, name, conv2d, run_conv2d, passes=2 * iterations))
    return found


def _crown_products(sizes: Sizes, batch: int) -> list[Case]:
    rows, batch = 9, max(1, batch // 8)  # nine rows of a full batch are more than a step of this network takes
    inputs, outputs = 2 * sizes.width * (sizes.side // 2) ** 2, sizes.features
    channels, maps, side, _ = _layers(sizes)[2]
    geometry = ((side, side), (1, 1), (1, 1), (1, 1), 1)

    def linear(m: Maker) -> Tensors:
        return m.normal(batch, rows, outputs), m.normal(outputs, inputs), m.normal(outputs)

    def linear_back(m: Maker) -> Tensors:
        return m.normal(batch, rows, inputs), m.normal(batch, rows), *linear(m)

    def conv2d(m: Maker) -> Tensors:
        spread = m.maps(batch, rows, maps, side, side, channels_last=True)
        return spread, m.normal(maps, channels, 3, 3), m.normal(maps)

    def conv2d_back(m: Maker) -> Tensors:
        return m.maps(batch, rows, channels, side, side, channels_last=True), m.normal(batch, rows), *conv2d(m)

    needs = (True, True, True)
    of_linear = {"multiplications": batch * rows * inputs * outputs}
    of_conv2d = {"multiplications": batch * rows * maps * side**2 * channels * 9}
    name = f"{batch} x {rows} rows"
    return [
        Case(
            "crown_linear",
            f"forward, {name}",
            linear,
            lambda code, t: code.crown_linear_fwd(*t),
            products=1,
            **of_linear,
        ),
        Case(
            "crown_linear",
            f"backward, {name}",
            linear_back,
            lambda code, t: code.crown_linear_bwd(*t, needs),
            products=2,
            **of_linear,
        ),
        Case(
            "crown_conv2d",
            f"forward, {name}",
            conv2d,
            lambda code, t: code.crown_conv2d_fwd(*t, *geometry),
            products=1,
            **of_conv2d,
        ),
        Case(
            "crown_conv2d",
            f"backward, {name}",
            conv2d_back,
            lambda code, t: code.crown_conv2d_bwd(*t, *geometry, needs),
            products=2,
            **of_conv2d,
        ),
    ]
