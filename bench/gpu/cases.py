"""The calls that the kernel suite measures, each with the minimum that it must read, write and multiply."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Sizes:
    """`elements`: of the largest map of an element-wise case; the others size the products."""

    elements: int
    batches: tuple[int, ...]
    width: int
    side: int
    features: int

    @staticmethod
    def full(l2_bytes: int) -> Sizes:
        # Even half-precision maps are four times the cache. Products: CNN-7 of width 64 on 32x32 images.
        return Sizes(elements=4 * l2_bytes // 2, batches=(128, 512), width=64, side=32, features=512)

    @staticmethod
    def small() -> Sizes:
        return Sizes(elements=1 << 12, batches=(2,), width=4, side=8, features=8)


@dataclass(frozen=True)
class Maker:
    """Random tensors of one dtype on one device."""

    device: torch.device
    dtype: torch.dtype

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device).to(self.dtype)

    def positive(self, *shape: int) -> Tensor:
        return torch.rand(shape, device=self.device).add_(0.01).to(self.dtype)

    def sums(self, count: int) -> Tensor:
        """Numbers that are summed over a map: float32 for maps of half precision."""
        return torch.rand(count, device=self.device, dtype=torch.promote_types(self.dtype, torch.float32))

    def maps(self, *shape: int, channels_last: bool, positive: bool = False) -> Tensor:
        """[*, B, C, H, W]; the leading dimensions and the batch are one batch of the memory format."""
        flat = (self.positive if positive else self.normal)(math.prod(shape[:-3]), *shape[-3:])
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return flat.contiguous(memory_format=layout).unflatten(0, shape[:-3])


@dataclass(frozen=True)
class Case:
    """A call of one primitive: `make` creates its buffers, `run` calls a backend's module on them.

    `passes`: how often the buffers must be read (2 if a sum over all of them is needed before they are used again).
    `products`: number of products of `multiplications` each; 0 for element-wise work, whose limit is bytes.
    """

    stem: str
    name: str
    make: Callable[[Maker], Tensors]
    run: Callable[[ModuleType, Tensors], Any]
    passes: int = 1
    products: int = 0
    multiplications: int = 0

    def bytes_moved(self, buffers: Tensors, outputs: Any) -> int:
        return self.passes * sum(map(_bytes, buffers)) + sum(map(_bytes, _tensors(outputs)))

    @property
    def flops(self) -> int:
        return 2 * self.products * self.multiplications


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _tensors(outputs: Any) -> list[Tensor]:
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return [tensor for tensor in outputs if isinstance(tensor, Tensor)]


def cases(sizes: Sizes) -> list[Case]:
    """Every primitive, forward and backward: first those limited by bytes, then the products."""
    found = []
    for channels_last in (True, False):
        found += _norm_relu(sizes, channels_last)
    found += [*_moments(sizes), *_singleprop(sizes), *_margin(sizes), *_crown_relu(sizes), *_concretize(sizes)]
    found += _power(sizes)
    for batch in sizes.batches:
        found += [*_linear(sizes, batch), *_conv2d(sizes, batch), *_crown_products(sizes, batch)]
    return found


def _norm_relu(sizes: Sizes, channels_last: bool) -> list[Case]:
    channels, side, eps = sizes.width, sizes.side, 1e-5
    batch = max(2, sizes.elements // (channels * side * side))
    layout = "channels_last" if channels_last else "contiguous"

    def maps(m: Maker, count: int) -> list[Tensor]:
        shape = (batch, channels, side, side)
        made = [m.maps(2, *shape, channels_last=channels_last) for _ in range(count)]
        return [*made, m.maps(*shape, channels_last=channels_last, positive=True)]

    def affine(m: Maker) -> list[Tensor]:
        return [m.normal(channels), m.positive(channels), m.normal(channels), m.normal(channels)]

    def forward(m: Maker) -> Tensors:
        return (*maps(m, 1), *affine(m))

    def backward(m: Maker) -> Tensors:
        grad_stack, stack, radius = maps(m, 2)
        return grad_stack, torch.randn_like(radius), stack, radius, *affine(m)

    needs = (True, True, True, True)
    stem = "interval_norm_relu"
    return [
        Case(
            stem,
            f"statistics, {layout}",
            lambda m: (m.maps(batch, channels, side, side, channels_last=channels_last),),
            lambda code, t: code.interval_norm_relu_statistics(*t),
        ),
        Case(stem, f"forward, {layout}", forward, lambda code, t: code.interval_norm_relu_fwd(*t, eps, 0.0)),
        Case(
            stem,
            f"forward without norm, {layout}",
            lambda m: tuple(maps(m, 1)),
            lambda code, t: code.interval_norm_relu_fwd(*t, None, None, None, None, eps, 0.0),
        ),
        Case(
            stem,
            f"backward, batch statistics, {layout}",
            backward,
            lambda code, t: code.interval_norm_relu_bwd(*t, eps, 0.0, True, needs),
            passes=2,
        ),
        Case(
            stem,
            f"backward without norm, {layout}",
            lambda m: backward(m)[:4],
            lambda code, t: code.interval_norm_relu_bwd(*t, None, None, None, None, eps, 0.0, False, needs),
        ),
    ]


def _map_shape(sizes: Sizes) -> tuple[int, int, int, int]:
    return max(2, sizes.elements // (sizes.width * sizes.side**2)), sizes.width, sizes.side, sizes.side


def _per_channel(m: Maker, channels: int) -> Tensors:
    """Mean, variance, weight and bias [C]."""
    return m.normal(channels), m.positive(channels), m.normal(channels), m.normal(channels)


def _moments(sizes: Sizes) -> list[Case]:
    shape, eps = _map_shape(sizes), 1e-5

    def forward(m: Maker) -> Tensors:
        streams = m.maps(2, *shape, channels_last=True)
        radius = m.maps(*shape, channels_last=True, positive=True)
        return streams, radius, *_per_channel(m, shape[1])

    def backward(m: Maker) -> Tensors:
        buffers = forward(m)
        grads = (torch.randn_like(t) for t in buffers[:2])
        return *grads, m.sums(8), *buffers, m.sums(8)

    stem, needs = "interval_norm_relu_moments", (True, True, True, True)
    return [
        Case(stem, "forward, channels_last", forward, lambda code, t: getattr(code, f"{stem}_fwd")(*t, eps, 0.0)),
        Case(
            stem,
            "backward, batch statistics, channels_last",
            backward,
            lambda code, t: getattr(code, f"{stem}_bwd")(*t, eps, 0.0, True, needs),
            passes=2,
        ),
    ]


def _singleprop(sizes: Sizes) -> list[Case]:
    shape, eps = _map_shape(sizes), 1e-5

    def forward(m: Maker) -> Tensors:
        maps = (m.maps(*shape, channels_last=True, positive=positive) for positive in (False, True))
        return *maps, *_per_channel(m, shape[1])

    def backward(m: Maker) -> Tensors:
        buffers = forward(m)
        return *(torch.randn_like(t) for t in buffers[:2]), *buffers

    stem, needs = "singleprop_norm_relu", (True, True, True, True)
    return [
        Case(stem, "forward, channels_last", forward, lambda code, t: code.singleprop_norm_relu_fwd(*t, eps, "zero")),
        Case(
            stem,
            "backward, batch statistics, channels_last",
            backward,
            lambda code, t: code.singleprop_norm_relu_bwd(*t, eps, "zero", True, needs),
            passes=2,
        ),
    ]


def _margin(sizes: Sizes) -> list[Case]:
    classes, features = 10, sizes.features
    batch = max(2, sizes.elements // features)

    def forward(m: Maker) -> Tensors:
        labels = torch.randint(classes, (batch,), device=m.device)
        return m.positive(batch, features), m.normal(classes, features), labels

    stem = "interval_margin"
    return [
        Case(stem, "forward", forward, lambda code, t: code.interval_margin_fwd(*t)),
        Case(
            stem,
            "backward",
            lambda m: (m.normal(batch, classes - 1), *forward(m)),
            lambda code, t: code.interval_margin_bwd(*t, (True, True)),
        ),
    ]


def _crown_relu(sizes: Sizes) -> list[Case]:
    rows, channels, side = 9, sizes.width, sizes.side
    batch = max(2, sizes.elements // (rows * channels * side * side))

    def forward(m: Maker) -> Tensors:
        shape = (channels, side, side)
        box = (m.maps(batch, *shape, channels_last=True, positive=positive) for positive in (False, True))
        per_channel = (m.normal(channels) for _ in range(3))
        return m.maps(batch, rows, *shape, channels_last=True), *box, *per_channel

    def backward(m: Maker) -> Tensors:
        buffers = forward(m)
        return torch.randn_like(buffers[0]), m.normal(batch, rows), *buffers

    stem, settings = "crown_relu", (0.0, "adaptive")
    return [
        Case(stem, "forward, 9 rows", forward, lambda code, t: code.crown_relu_fwd(*t, *settings)),
        Case(
            stem,
            "backward, 9 rows",
            backward,
            # With a scale it reads the incoming rows instead of the outgoing ones.
            lambda code, t: code.crown_relu_bwd(*t[:3], None, *t[3:], *settings, (True,) * 6),
        ),
    ]


def _concretize(sizes: Sizes) -> list[Case]:
    rows, inputs = 9, 3 * sizes.side**2
    batch = max(2, sizes.elements // (rows * inputs))

    def forward(m: Maker) -> Tensors:
        return m.normal(batch, rows, inputs), m.normal(batch, inputs), m.positive(batch, inputs)

    stem = "crown_concretize"
    return [
        Case(stem, "forward, 9 rows", forward, lambda code, t: code.crown_concretize_fwd(*t)),
        Case(
            stem,
            "backward, 9 rows",
            lambda m: (m.normal(batch, rows), *forward(m)),
            lambda code, t: code.crown_concretize_bwd(*t, (True, True, True)),
        ),
    ]


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
