"""The element-wise calls of the kernel suite, forward and backward: their floor is bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.gpu.case import Case, Maker, Sizes, Tensors


def element_wise_cases(sizes: Sizes) -> list[Case]:
    found = []
    for channels_last in (True, False):
        found += _norm_relu(sizes, channels_last)
    found += [*_moments(sizes), *_singleprop(sizes), *_margin(sizes), *_crown_relu(sizes), *_concretize(sizes)]
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
