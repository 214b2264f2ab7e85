"""Element-wise functions of intervals by their exact range, shape functions on every stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastbound as fb

# ---- element-wise functions: the bounds are the range ----------------------------------------------------------------

# Each with the points at which it turns, which the sampled intervals contain, touch, and avoid.
ELEMENTWISE: dict[str, tuple[Callable[[Any], Any], tuple[float, ...]]] = {
    "relu": (F.relu, (0.0,)),
    "relu6": (F.relu6, (0.0, 6.0)),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), (0.0,)),
    "leaky_relu of negative slope": (lambda x: F.leaky_relu(x, -0.3), (0.0,)),
    "leaky_relu of slope above 1": (lambda x: F.leaky_relu(x, 2.5), (0.0,)),
    "elu": (lambda x: F.elu(x, 0.7), (0.0,)),
    "selu": (F.selu, (0.0,)),
    "celu": (lambda x: F.celu(x, 1.3), (0.0,)),
    "gelu": (F.gelu, (-0.7517915246935645,)),
    "gelu, tanh": (lambda x: F.gelu(x, approximate="tanh"), (-0.7524614220710162,)),
    "silu": (F.silu, (-1.2784645427610738,)),
    "mish": (F.mish, (-1.1924318978,)),
    "hardswish": (F.hardswish, (-3.0, -1.5, 3.0)),
    "hardsigmoid": (F.hardsigmoid, (-3.0, 3.0)),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 1.5), (-0.5, 1.5)),
    "softplus": (lambda x: F.softplus(x, 2.0, 5.0), (0.0,)),
    "softplus at its threshold": (lambda x: F.softplus(x, 2.0, 1.0), (0.5,)),
    "softplus, threshold below 0": (lambda x: F.softplus(x, 0.5, -1.0), (-2.0,)),
    "sigmoid": (torch.sigmoid, (0.0,)),
    "tanh": (torch.tanh, (0.0,)),
    "exp": (torch.exp, (0.0,)),
    "abs": (torch.abs, (0.0,)),
    "square": (torch.square, (0.0,)),
    "clamp": (lambda x: torch.clamp(x, -0.3, 0.9), (-0.3, 0.9)),
    "clamp below": (lambda x: x.clamp(min=0.25), (0.25,)),
    "clamp above": (lambda x: torch.clamp_max(x, 0.25), (0.25,)),
    "clip": (lambda x: x.clip(-1, 1), (-1.0, 1.0)),
    "prelu": (lambda x: F.prelu(x, torch.full((1,), 0.25, dtype=torch.float64)), (0.0,)),
    "prelu of negative slope": (lambda x: F.prelu(x, torch.full((1,), -0.5, dtype=torch.float64)), (0.0,)),
    "neg": (torch.neg, ()),
    "times -2": (lambda x: x * -2.0, ()),
    "3 - x": (lambda x: 3.0 - x, ()),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_bounds_are_the_range_of_the_function(name: str) -> None:
    """Dense points of the interval reach both bounds, up to the distance between them, and never pass."""
    function, turns = ELEMENTWISE[name]
    ends = [(-8.0, 7.0), (-2.0, -1.9), (0.4, 0.5), (-0.1, 0.3), (1.0, 1.0), (-7.0, -5.0), (5.5, 9.0)]
    for t in turns:
        ends += [(t - 0.3, t + 0.2), (t - 0.01, t + 2.0), (t, t + 1.0), (t - 1.0, t), (t, t), (t + 0.1, t + 0.4)]
    lower, upper = (torch.tensor(column, dtype=torch.float64).unsqueeze(0) for column in zip(*ends))
    clean = (lower + upper) / 2
    out = function(fb.box(lower, upper, nominal=clean))
    count = 20001
    inside = lower + (upper - lower) * torch.linspace(0, 1, count, dtype=torch.float64).unsqueeze(1)
    values = function(inside)
    assert (values >= out.lower - 1e-12).all() and (values <= out.upper + 1e-12).all()
    reach = (upper - lower).squeeze(0) / count * 10 * (1 + values.abs().amax(0))
    assert (values.amin(0) - out.lower.squeeze(0) <= reach + 1e-12).all(), "the lower bound is not attained"
    assert (out.upper.squeeze(0) - values.amax(0) <= reach + 1e-12).all(), "the upper bound is not attained"
    assert torch.equal(out.nominal, function(clean)) or torch.allclose(out.nominal, function(clean), rtol=1e-15)


@pytest.mark.parametrize("slopes", [[0.25, -0.5, 2.0], [-1.0, 0.0, 1.0]])
def test_prelu_per_channel(slopes: list[float]) -> None:
    layer = nn.PReLU(3).double()
    layer.weight.data = torch.tensor(slopes, dtype=torch.float64)
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    out = layer(fb.linf_box(x, 0.6))
    values = torch.stack([layer(x + d) for d in torch.linspace(-0.6, 0.6, 2001, dtype=torch.float64)])
    assert torch.allclose(out.lower, values.amin(0), atol=2e-3) and (out.lower <= values.amin(0) + 1e-12).all()
    assert torch.allclose(out.upper, values.amax(0), atol=2e-3) and (out.upper >= values.amax(0) - 1e-12).all()


def test_gradients_of_the_ends() -> None:
    """The upper bound moves with the end that it is taken at."""
    lower = torch.tensor([[-2.0, -0.5, 0.3, -3.0]], dtype=torch.float64, requires_grad=True)
    upper = torch.tensor([[-1.0, 0.7, 0.9, 0.5]], dtype=torch.float64, requires_grad=True)
    for function, _ in (ELEMENTWISE["silu"], ELEMENTWISE["sigmoid"], ELEMENTWISE["abs"], ELEMENTWISE["relu"]):

        def ends(a: Tensor, b: Tensor, function: Callable[[Any], Any] = function) -> tuple[Tensor, Tensor]:
            out = function(fb.box(a, b))
            return out.lower, out.upper

        assert torch.autograd.gradcheck(ends, (lower, upper))


@pytest.mark.parametrize("layer", [nn.Dropout(0.4), nn.Dropout2d(0.4), nn.Dropout1d(0.4), nn.Dropout3d(0.4)])
def test_dropout_takes_one_mask_for_all_streams(layer: nn.Module) -> None:
    shape = {"Dropout1d": (4, 6, 5), "Dropout3d": (4, 6, 2, 2, 2)}.get(type(layer).__name__, (4, 6, 5, 5))
    x = torch.rand(shape) + 0.5
    out = layer.train()(fb.linf_box(x, 0.25))
    mask = out.nominal / x
    assert set(mask.unique().tolist()) <= {0.0} | {v for v in mask.unique().tolist() if abs(v - 1 / 0.6) < 1e-5}
    assert 0 < (mask == 0).float().mean() < 1
    if not isinstance(layer, nn.Dropout):
        assert (mask.flatten(2).amin(2) == mask.flatten(2).amax(2)).logical_or(mask.flatten(2).amin(2) > 1).all()
    assert torch.allclose(out.center, mask * x, atol=1e-6) and torch.allclose(out.radius, mask * 0.25, atol=1e-6)
    box = fb.linf_box(x, 0.25)
    assert layer.eval()(box) is box


# ---- shape functions -------------------------------------------------------------------------------------------------

index = torch.tensor([1, 0, 1])
mask = torch.tensor([True, False, True])

SHAPES: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "flatten": (lambda x: torch.flatten(x, 1), (2, 3, 4)),
    "flatten middle": (lambda x: x.flatten(1, 2), (2, 3, 4, 2)),
    "flatten all": (lambda x: x.flatten(), (2, 3, 4)),
    "reshape": (lambda x: x.reshape(2, -1), (2, 3, 4)),
    "reshape batch": (lambda x: torch.reshape(x, (6, 4)), (2, 3, 4)),
    "view": (lambda x: x.view(x.size(0), -1), (2, 3, 4)),
    "view of a list": (lambda x: x.view([2, 12]), (2, 3, 4)),
    "view_as": (lambda x: x.view_as(torch.zeros(2, 12)), (2, 3, 4)),
    "unflatten": (lambda x: x.unflatten(1, (2, -1)), (2, 6)),
    "permute": (lambda x: x.permute(0, 2, 1, 3), (2, 3, 4, 2)),
    "permute batch": (lambda x: torch.permute(x, (2, 0, 1)), (2, 3, 4)),
    "transpose": (lambda x: x.transpose(1, -1), (2, 3, 4)),
    "transpose batch": (lambda x: torch.transpose(x, 0, 1), (2, 3, 4)),
    "swapaxes": (lambda x: x.swapaxes(1, 2), (2, 3, 4)),
    "movedim": (lambda x: torch.movedim(x, 1, 3), (2, 3, 4, 2)),
    "squeeze": (lambda x: x.squeeze(), (2, 1, 3, 1)),
    "squeeze dim": (lambda x: x.squeeze(-1), (2, 1, 3, 1)),
    "squeeze nothing": (lambda x: torch.squeeze(x, 2), (2, 1, 3)),
    "squeeze dims": (lambda x: torch.squeeze(x, (1, 3)), (2, 1, 3, 1)),
    "unsqueeze": (lambda x: x.unsqueeze(1), (2, 3)),
    "unsqueeze last": (lambda x: torch.unsqueeze(x, -1), (2, 3)),
    "unsqueeze batch": (lambda x: x.unsqueeze(0), (2, 3)),
    "expand": (lambda x: x.expand(2, 4, 3), (2, 1, 3)),
    "expand -1": (lambda x: x.expand(-1, -1, 5), (2, 3, 1)),
    "expand new": (lambda x: x.expand(4, 2, 3), (2, 3)),
    "repeat": (lambda x: x.repeat(1, 2, 3), (2, 3, 2)),
    "index int": (lambda x: x[:, 1], (2, 3, 4)),
    "index slice": (lambda x: x[:, ::2, 1:], (2, 4, 3)),
    "index ellipsis": (lambda x: x[..., -1], (2, 3, 4)),
    "index none": (lambda x: x[:, None, 1:], (2, 3)),
    "index batch": (lambda x: x[1], (2, 3, 4)),
    "index tensor": (lambda x: x[:, index], (2, 3, 4)),
    "index list": (lambda x: x[:, [2, 0]], (2, 3, 4)),
    "index two tensors": (lambda x: x[index, index], (2, 3, 4)),
    "index mask": (lambda x: x[:, mask], (2, 3, 4)),
    "index mixed": (lambda x: x[:, 1:, index], (2, 3, 4)),
    "select": (lambda x: x.select(1, -1), (2, 3, 4)),
    "narrow": (lambda x: torch.narrow(x, 2, 1, 2), (2, 3, 4)),
    "index_select": (lambda x: torch.index_select(x, 1, index), (2, 3, 4)),
    "flip": (lambda x: x.flip(1, 2), (2, 3, 4)),
    "flip list": (lambda x: torch.flip(x, [-1]), (2, 3, 4)),
    "roll": (lambda x: torch.roll(x, 1, 2), (2, 3, 4)),
    "roll all": (lambda x: x.roll(2), (2, 3)),
    "chunk": (lambda x: x.chunk(2, 1), (2, 5, 3)),
    "split": (lambda x: torch.split(x, 2, dim=1), (2, 5, 3)),
    "split sections": (lambda x: x.split([1, 4], 1), (2, 5, 3)),
    "unbind": (lambda x: torch.unbind(x, 1), (2, 3, 4)),
    "iterate": (lambda x: list(x), (3, 2)),
    "cat": (lambda x: torch.cat([x, x * -1.0], 1), (2, 3, 4)),
    "cat batch": (lambda x: torch.cat((x, x)), (2, 3)),
    "cat with constant": (lambda x: torch.cat([x, torch.ones(2, 2, 4)], dim=-2), (2, 3, 4)),
    "cat constant first": (lambda x: torch.concat([torch.ones(2, 2), x], 1), (2, 3)),
    "stack": (lambda x: torch.stack([x, x + 1], 1), (2, 3)),
    "stack last": (lambda x: torch.stack((x, x), dim=-1), (2, 3)),
    "pad": (lambda x: F.pad(x, (1, 2)), (2, 3, 4)),
    "pad value": (lambda x: F.pad(x, (1, 0, 0, 2), value=-1.5), (2, 3, 4, 4)),
    "pad negative": (lambda x: F.pad(x, (-1, 1)), (2, 3, 4)),
    "pad reflect": (lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"), (2, 3, 4, 4)),
    "pad replicate": (lambda x: F.pad(x, (1, 2), mode="replicate"), (2, 3, 4)),
    "pad circular": (lambda x: F.pad(x, (1, 1, 1, 1), mode="circular"), (2, 3, 4, 4)),
    "sum": (lambda x: x.sum(1), (2, 3, 4)),
    "sum all": (lambda x: torch.sum(x), (2, 3, 4)),
    "sum keepdim": (lambda x: x.sum((1, -1), keepdim=True), (2, 3, 4)),
    "mean": (lambda x: x.mean([2, 3]), (2, 3, 4, 2)),
    "mean all": (lambda x: x.mean(), (2, 3, 4)),
    "mean dim=": (lambda x: torch.mean(x, dim=-1, keepdim=True), (2, 3, 4)),
    "max_pool1d": (lambda x: F.max_pool1d(x, 3, stride=2, padding=1), (2, 3, 9)),
    "max_pool2d": (lambda x: F.max_pool2d(x, (3, 2), stride=(1, 2), padding=(1, 0), ceil_mode=True), (2, 3, 7, 7)),
    "max_pool2d dilated": (lambda x: F.max_pool2d(x, 2, 1, 0, 2), (2, 3, 7, 7)),
    "max_pool3d": (lambda x: F.max_pool3d(x, 2), (2, 2, 4, 4, 4)),
    "avg_pool1d": (lambda x: F.avg_pool1d(x, 3, 2, 1), (2, 3, 9)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False), (2, 3, 8, 8)),
    "avg_pool2d divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), (2, 3, 8, 8)),
    "avg_pool3d": (lambda x: F.avg_pool3d(x, 2, padding=1), (2, 2, 4, 4, 4)),
    "adaptive_avg_pool1d": (lambda x: F.adaptive_avg_pool1d(x, 3), (2, 3, 7)),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (2, None)), (2, 3, 5, 4)),
    "adaptive_avg_pool3d": (lambda x: F.adaptive_avg_pool3d(x, 2), (2, 2, 5, 4, 3)),
    "adaptive_max_pool1d": (lambda x: F.adaptive_max_pool1d(x, 3), (2, 3, 7)),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, (3, 2)), (2, 3, 5, 4)),
    "adaptive_max_pool3d": (lambda x: F.adaptive_max_pool3d(x, 2), (2, 2, 5, 4, 3)),
    "interpolate nearest": (lambda x: F.interpolate(x, scale_factor=2), (2, 3, 4, 5)),
    "interpolate nearest-exact": (lambda x: F.interpolate(x, size=(3, 7), mode="nearest-exact"), (2, 3, 4, 5)),
    "interpolate bilinear": (lambda x: F.interpolate(x, size=(7, 3), mode="bilinear"), (2, 3, 4, 5)),
    "interpolate linear": (lambda x: F.interpolate(x, scale_factor=1.5, mode="linear", align_corners=True), (2, 3, 6)),
    "interpolate trilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"), (2, 2, 2, 3, 2)),
    "interpolate area": (lambda x: F.interpolate(x, size=3, mode="area"), (2, 3, 7, 7)),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), (2, 8, 3, 3)),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), (2, 2, 4, 4)),
    "channel_shuffle": (lambda x: nn.ChannelShuffle(2)(x), (2, 4, 3, 3)),
    "contiguous": (lambda x: x.transpose(1, 2).contiguous(), (2, 3, 4)),
    "clone": (lambda x: x.clone(), (2, 3)),
    "to": (lambda x: x.to(torch.float64), (2, 3)),
    "double": (lambda x: x.double().float(), (2, 3)),
    "matmul": (lambda x: x @ torch.tensor([[1.0, -2.0], [0.0, 3.0], [-1.0, 0.5]]), (2, 3)),
    # the functions of a layer whose maps are not in row-major order
    "of a channels_last map": (lambda x: x.contiguous(memory_format=torch.channels_last).flatten(1), (2, 3, 4, 4)),
}


@pytest.mark.parametrize("nominal", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_shape_functions_do_what_torch_does_to_every_stream(name: str, nominal: bool) -> None:
    """None of these has a weight of its own, so lower and upper may be computed one by one, by corners of matmul."""
    function, shape = SHAPES[name]
    x, eps = torch.randn(shape), torch.rand(shape)
    found, plain = function(fb.linf_box(x, eps, nominal=nominal)), function(x)
    if isinstance(plain, Tensor):
        found, plain = [found], [plain]
    assert len(found) == len(plain)
    low, high = (function(v) for v in (x - eps, x + eps))
    low, high = ([low], [high]) if isinstance(low, Tensor) else (low, high)
    signed = name in ("cat", "matmul")
    for ours, value, lower, upper in zip(found, plain, low, high):
        assert isinstance(ours, fb.Interval)
        assert ours.shape == value.shape == ours.radius.shape and ours.dtype == value.dtype
        assert ours.size() == value.size() and ours.dim() == ours.ndim == value.dim() and ours.numel() == value.numel()
        assert (ours.nominal is None) == (not nominal)
        if nominal:
            assert torch.allclose(ours.nominal, value, rtol=1e-5, atol=1e-6)
        if not signed:
            assert torch.allclose(ours.lower, lower, rtol=1e-5, atol=1e-5)
            assert torch.allclose(ours.upper, upper, rtol=1e-5, atol=1e-5)
        else:
            points = torch.stack([torch.stack([*function(x + eps * (2 * torch.rand(shape) - 1))]) for _ in range(50)])
            assert (points >= ours.lower - 1e-5).all() and (points <= ours.upper + 1e-5).all()


@pytest.mark.parametrize("name", ["flatten", "permute", "index slice", "cat", "chunk", "pad value", "avg_pool2d"])
def test_shape_functions_after_a_convolution(name: str) -> None:
    """On maps in the memory order of a product rather than that of a box."""
    function = SHAPES[name][0]
    layer = nn.Conv2d(2, 4, 3, padding=1).double()
    x = torch.randn(2, 2, 4, 6, dtype=torch.float64)
    found = function(layer(fb.linf_box(x, 0.2)))
    weight = layer.weight
    center, radius = layer(x), F.conv2d(torch.full_like(x, 0.2), weight.abs(), padding=1)
    wanted = function(fb.box(center - radius, center + radius, nominal=center))
    for ours, theirs in zip(found, wanted) if isinstance(found, tuple) else [(found, wanted)]:
        for end in ("lower", "upper", "nominal"):
            assert torch.allclose(getattr(ours, end), getattr(theirs, end), rtol=1e-12, atol=1e-12)
