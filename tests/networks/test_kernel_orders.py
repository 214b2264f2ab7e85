"""Weights and maps of a convolution may have any memory order: the numbers are those of row-major copies.

torch's convolutions are wrong for some orders, so the networks themselves are computed here with row-major weights.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastbound as fb
from fastbound.domains.lipschitz.operators import ConvolutionOperator
from fastbound.primitives.convolution import as_kernel

KERNELS = {
    "conv1d": lambda: nn.Conv1d(4, 4, 1, groups=2),
    "conv2d high": lambda: nn.Conv2d(4, 4, (3, 1), groups=2),
    "conv2d wide": lambda: nn.Conv2d(4, 4, (1, 3), groups=2),
    "conv2d ungrouped": lambda: nn.Conv2d(4, 4, (3, 1)),
    "conv3d": lambda: nn.Conv3d(4, 4, (1, 3, 1), groups=2),
    "transposed 1d": lambda: nn.ConvTranspose1d(4, 4, 1, groups=2),
    "transposed 2d": lambda: nn.ConvTranspose2d(4, 4, (3, 1), groups=2),
    "transposed 3d": lambda: nn.ConvTranspose3d(4, 4, (1, 3, 1), groups=2),
}


def channels_innermost(x: Tensor) -> Tensor:  # [B, C, *]
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def orders(weight: Tensor) -> Iterator[Tensor]:
    """The same numbers in orders of dimensions (of five: some), between gaps, and with odd strides of sides of 1."""
    dims = range(weight.dim())
    for order in itertools.permutations(dims):
        if weight.dim() < 5 or (order[0], order[-1]) == (0, 1):
            yield weight.permute(order).contiguous().permute([order.index(d) for d in dims])
    yield weight.repeat_interleave(2, -1)[..., ::2]
    for dense in (weight.contiguous(), channels_innermost(weight)):
        for stride in (1, 7):
            yield dense.as_strided(
                dense.shape, [stride if size == 1 else s for s, size in zip(dense.stride(), dense.shape)]
            )


def network(kind: str) -> tuple[nn.Sequential, Tensor]:
    """Two such convolutions and a linear layer; inputs [B, C, *] with channels innermost."""
    torch.manual_seed(0)
    first, second = KERNELS[kind](), KERNELS[kind]()
    x = channels_innermost(torch.rand(2, 4, *(5,) * (first.weight.dim() - 2)))
    features = second(first(x)).flatten(1).shape[1]
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(features, 2)), x


def stored_in(model: nn.Sequential, order: int) -> nn.Sequential:
    """A copy of the model whose convolutions have their weights in one of the `orders`."""
    out = copy.deepcopy(model)
    for layer in (out[0], out[2]):
        layer.weight = nn.Parameter(next(itertools.islice(orders(layer.weight.detach()), order, None)))
    return out


def count(kind: str) -> int:
    return sum(1 for _ in orders(network(kind)[0][0].weight.detach()))


def magnitude(model: nn.Sequential, x: Tensor) -> Tensor:  # [B, C, *] -> [B, 2], the sum of all terms' sizes
    sizes = copy.deepcopy(model).double()
    with torch.no_grad():
        for parameter in sizes.parameters():
            parameter.abs_()
        return sizes(x.double().abs() + 0.1)


@pytest.mark.parametrize(("kind", "order"), [(kind, order) for kind in KERNELS for order in range(count(kind))])
def test_every_order_gives_sound_bounds_and_the_same_gradients(kind: str, order: int) -> None:
    model, x = network(kind)
    ours, unit = stored_in(model, order), torch.finfo(torch.float32).eps / 2
    points = x + 0.1 * torch.cat((torch.rand(40, *x.shape) * 2 - 1, torch.randn(40, *x.shape).sign()))
    with torch.no_grad():
        values = copy.deepcopy(model).double()(points.flatten(0, 1).double()).unflatten(0, points.shape[:2])
    # Each method adds up products of at most three layers, forwards and backwards.
    slack = 6 * (x[0].numel() + 8) * unit * magnitude(model, x)
    for method in ("ibp", "crown", "crown-ibp", "deepz"):
        bounds = fb.bound(ours, fb.linf_box(x, 0.1), method=method)
        assert (bounds.lower - slack <= values).all() and (values <= bounds.upper + slack).all(), method
        found = torch.autograd.grad(bounds.lower.sum(), list(ours.parameters()))
        same = fb.bound(model, fb.linf_box(x, 0.1), method=method).lower.sum()
        for grad, wanted in zip(found, torch.autograd.grad(same, list(model.parameters()))):
            torch.testing.assert_close(grad, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("kind", [kind for kind in KERNELS if kind.startswith("conv")])
def test_other_domains_read_every_order(kind: str) -> None:
    model, x = network(kind)
    wanted = model(fb.singleprop(x, 0.1)).radius
    weight = model[0].weight.detach()
    geometry = [(size,) * (weight.dim() - 2) for size in (1, 0, 1)]
    layer = ConvolutionOperator(weight, tuple(x.shape[2:]), *geometry, model[0].groups)
    y = channels_innermost(layer.apply(x))
    for order, stored in enumerate(orders(weight)):
        ours = stored_in(model, order)
        torch.testing.assert_close(ours(fb.singleprop(x, 0.1)).radius, wanted)
        other = ConvolutionOperator(stored, layer.size, *geometry, layer.groups)
        torch.testing.assert_close(other.apply(x), layer.apply(x))
        torch.testing.assert_close(other.adjoint(y), layer.adjoint(y))
        nominal = ours[0](fb.lipschitz(x, fb.LipschitzState())).nominal
        torch.testing.assert_close(nominal, model[0](x))


@pytest.mark.parametrize("method", ["ibp", "crown", "crown-ibp", "deepz"])
@pytest.mark.parametrize(  # the last one crashed
    "window",
    [
        ((1, 2), (1, 3), 0, (4, 4)),
        ((2, 3), (1, 2), 1, (2, 1)),
        ((3, 3), (1, 3), (2, 1), (4, 2)),
        ((3, 1), (2, 2), 1, (6, 1)),
    ],
    ids=str,
)
def test_one_channel_in_one_column_or_under_uneven_strides(window: Any, method: str) -> None:
    """oneDNN is wrong there, or crashes, with channels_last strides; it computes in float32 alone."""
    torch.manual_seed(0)
    kernel, stride, padding, (height, width) = window
    first = nn.Conv2d(1, 3, kernel, stride, padding)
    x = torch.rand(34, 1, height, width)
    model = nn.Sequential(first, nn.ReLU(), nn.Conv2d(3, 1, 1), nn.ReLU(), nn.Flatten())
    model.append(nn.Linear(model(x).shape[1], 2))
    found = fb.bound(model, fb.linf_box(x, 0.1), method=method)
    grads = torch.autograd.grad(found.lower.sum(), list(model.parameters()))
    model = copy.deepcopy(model).double()
    wanted = fb.bound(model, fb.linf_box(x.double(), 0.1), method=method)
    torch.testing.assert_close(found.lower.double(), wanted.lower, rtol=1e-4, atol=1e-5)
    for grad, other in zip(grads, torch.autograd.grad(wanted.lower.sum(), list(model.parameters()))):
        torch.testing.assert_close(grad.double(), other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maps_of_every_order_give_the_same_gradients(backend: str, dtype: torch.dtype) -> None:
    """Grouped, with a channels_last weight: there torch takes odd strides of sides of 1 for another order."""
    torch.manual_seed(0)
    weight = torch.randn(3, 2, 2, 2, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    center, radius = torch.randn(1, 6, 3, 8, dtype=dtype), torch.rand(1, 6, 3, 8, dtype=dtype)
    window = ((2, 2), (0, 2), (1, 1), 3)

    def gradient(center: Tensor, radius: Tensor) -> Tensor:
        out, width = fb.ops.interval_conv2d(center.unsqueeze(0), radius, weight, None, *window)
        rows = torch.einsum("bchw,bchw->bchw", out[0], width).unsqueeze(0)
        back, _ = fb.ops.crown_conv2d(rows, weight, None, (3, 8), *window)
        return torch.autograd.grad((back * center).sum(), weight)[0]

    with fb.use_backend(backend):
        wanted = gradient(center, radius)
        for map_order in orders(center):
            for radius_order in (radius, channels_innermost(radius).as_strided(radius.shape, (7, 1, 48, 6))):
                torch.testing.assert_close(gradient(map_order, radius_order), wanted, rtol=1e-4, atol=1e-4)


def test_windows_that_meet_padding_alone() -> None:
    """With channels_last strides oneDNN crashed here, as for one channel above."""
    torch.manual_seed(0)
    center, radius, weight, bias = (
        torch.rand(1, 6, 2, 1),
        torch.rand(1, 6, 2, 1),
        torch.randn(8, 3, 2, 1),
        torch.rand(8),
    )
    window = ((1, 2), (1, 1), (1, 2), 2)
    for _ in range(20):
        out, width = fb.ops.interval_conv2d(center.unsqueeze(0), radius, weight, bias, *window)
    assert torch.equal(out[0], bias[:, None, None].expand_as(out[0])) and not width.any()


def test_the_usual_orders_are_not_copied() -> None:
    weight = torch.rand(4, 2, 3, 1)
    for usual in (weight, weight.contiguous(memory_format=torch.channels_last), torch.rand(4, 2), torch.rand(4, 1, 1)):
        assert as_kernel(usual) is usual
    for strange in orders(weight):
        assert torch.equal(as_kernel(strange), strange)
