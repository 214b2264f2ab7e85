"""The networks of the certified-training literature, as the plain modules that a user would write.

Sources: DM-small, DM-medium, DM-large: Gowal et al., 2018, arXiv 1810.12715. CNN-7 with BatchNorm, Wide-ResNet and
ResNeXt: Shi et al., 2021, arXiv 2103.17268. Every convolution keeps its bias, even before a BatchNorm. ``mlp`` is from
no paper. ``norm=True`` gives the DM networks the BatchNorm of CNN-7, after every layer but the classifier.
``paradox-fc``, ``paradox-conv``: FC and CONV of Jovanovic et al., 2022, arXiv 2102.06700, whose CONVPLUS is DM-small.
SingleProp (Boopathy et al., 2021, arXiv 2102.01208) trains DM-small and DM-medium with ``same_padding=True`` and a wide
network of its own, ``wide-cnn``.
The GloRo networks: Leino et al., 2021, arXiv 2102.08452; ``activation="minmax"`` gives them MinMax instead of ReLU.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from fastbound.choices import NETWORKS
from fastbound.nn import MinMax, Normalize


def names() -> list[str]:
    """The names that `build` knows."""
    return sorted(NETWORKS)


def build(
    name: str,
    input_shape: Sequence[int],
    num_classes: int,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **options: object,
) -> nn.Sequential:
    """The network `name` for inputs of `input_shape`.

    Args:
        name: one of `names()`.
        input_shape: shape of one input without the batch, (C, H, W); ``mlp`` takes any shape.
        num_classes: number of logits, at least 2.
        mean, std: per channel; if both are given, the first layer is ``fastbound.nn.Normalize(mean, std)``, so that
            boxes stay in pixels.
        options: of the network, for example ``width`` of ``cnn7``.

    Raises:
        ValueError: unknown network or option, an option value that the network cannot be built with, or an input too
            small for the network (the message lists networks that fit).
    """
    shape = tuple(int(size) for size in input_shape)
    _check_request(name, shape, num_classes, options)
    try:
        layers = NETWORKS[name](shape, num_classes, **options)
    except _TooSmall as problem:
        raise ValueError(
            f"{name} does not fit inputs of shape {list(shape)}: {problem}. Networks that fit: "
            f"{', '.join(fitting(shape)) or 'none'}."
        ) from None
    except (TypeError, RuntimeError, ZeroDivisionError) as problem:
        raise ValueError(f"{name} cannot be built with the options {options}: {problem}.") from None
    return nn.Sequential(*_normalisation(mean, std), *layers)


def fitting(input_shape: Sequence[int]) -> list[str]:
    """The networks that inputs of this shape (C, H, W) are large enough for."""
    return [name for name in names() if _fits(name, tuple(input_shape))]


def default_network(input_shape: Sequence[int]) -> str:
    """The network that a run uses when none is named: DM-small if it fits, else the MLP."""
    return "dm-small" if _fits("dm-small", tuple(input_shape)) else "mlp"


class _TooSmall(ValueError):
    """The output of a layer would have no pixels."""


def _check_request(name: str, shape: tuple[int, ...], num_classes: int, options: dict[str, object]) -> None:
    if name not in NETWORKS:
        raise ValueError(f"model: there is no network {name!r}; known: {', '.join(names())}.")
    if not shape or min(shape) < 1:
        raise ValueError(f"input_shape: wanted positive sizes without the batch, (C, H, W), got {list(shape)}.")
    if num_classes < 2:
        raise ValueError(f"num_classes: wanted at least 2, got {num_classes}.")
    known = dict(list(inspect.signature(NETWORKS[name]).parameters.items())[2:])
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; its options: {', '.join(known) or 'none'}.")
    for option, value in options.items():
        if isinstance(known[option].default, bool) and not isinstance(value, bool):
            raise ValueError(f"{option} of {name}: wanted true or false, got {value!r}.")


def _fits(name: str, shape: tuple[int, ...]) -> bool:
    try:
        with torch.device("meta"):
            NETWORKS[name](shape, 2)
    except _TooSmall:
        return False
    return True


def _normalisation(mean: Sequence[float] | None, std: Sequence[float] | None) -> list[nn.Module]:
    if mean is None and std is None:
        return []
    if mean is None or std is None:
        raise ValueError("mean and std belong together: give both or neither.")
    return [Normalize(mean, std)]


def _output_shape(layers: Sequence[nn.Module], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape (C, H, W) after the convolutions and residual blocks of `layers`."""
    if len(shape) != 3:
        raise _TooSmall(f"it needs images (C, H, W), got {len(shape)} dimensions")
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            shape = (layer.out_channels, *(_conv_size(layer, axis, size) for axis, size in enumerate(shape[1:])))
        elif isinstance(layer, nn.ZeroPad2d):
            left, right, top, bottom = layer.padding
            shape = (shape[0], shape[1] + top + bottom, shape[2] + left + right)
        elif isinstance(layer, _Residual):
            stride = layer.stride
            shape = (layer.out_channels, *(math.ceil(size / stride) for size in shape[1:]))
    return shape


def _conv_size(conv: nn.Conv2d, axis: int, size: int) -> int:
    padding = conv.padding[axis]
    assert not isinstance(padding, str)
    out = (size + 2 * padding - conv.kernel_size[axis]) // conv.stride[axis] + 1
    if out < 1:
        raise _TooSmall(f"a {conv.kernel_size[axis]}x{conv.kernel_size[axis]} convolution meets {size} pixels")
    return out


def _head(
    layers: list[nn.Module], shape: tuple[int, ...], hidden: Sequence[int], num_classes: int, norm: bool = False
) -> list[nn.Module]:
    """`layers`, then flatten, the hidden fully connected layers and the classifier."""
    size = math.prod(_output_shape(layers, shape))
    layers = [*layers, nn.Flatten()]
    for width in hidden:
        layers += [nn.Linear(size, width), *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU()]
        size = width
    return [*layers, nn.Linear(size, num_classes)]


def _convs(channels: int, plan: Sequence[tuple[int, int, int, int]], norm: bool = False) -> list[nn.Module]:
    """Convolution (BatchNorm) ReLU for every (channels, kernel, stride, padding) of the plan."""
    layers: list[nn.Module] = []
    for out, kernel, stride, padding in plan:
        layers += [
            nn.Conv2d(channels, out, kernel, stride, padding),
            *([nn.BatchNorm2d(out)] if norm else []),
            nn.ReLU(),
        ]
        channels = out
    return layers


def _same_convs(
    shape: tuple[int, ...], plan: Sequence[tuple[int, int, int, int]], norm: bool = False
) -> list[nn.Module]:
    """As `_convs`, but padded to ceil(size / stride) pixels as TensorFlow's "SAME" does."""
    layers: list[nn.Module] = []
    for out, kernel, stride, _ in plan:
        layers += _same_convolution(_output_shape(layers, shape), out, kernel, stride)
        layers += [*([nn.BatchNorm2d(out)] if norm else []), nn.ReLU()]
    return layers


def _same_convolution(shape: tuple[int, ...], out: int, kernel: int, stride: int) -> list[nn.Module]:
    """A convolution with TensorFlow's "SAME" padding: an odd pixel goes right and below, by a layer of its own."""
    totals = [max((math.ceil(size / stride) - 1) * stride + kernel - size, 0) for size in shape[1:]]
    if all(total % 2 == 0 for total in totals):
        return [nn.Conv2d(shape[0], out, kernel, stride, (totals[0] // 2, totals[1] // 2))]
    (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in totals)
    return [nn.ZeroPad2d((left, right, top, bottom)), nn.Conv2d(shape[0], out, kernel, stride)]


def _plain(
    shape: tuple[int, ...],
    num_classes: int,
    plan: Sequence[tuple[int, int, int, int]],
    hidden: Sequence[int],
    norm: bool,
    same_padding: bool = False,
) -> list[nn.Module]:
    """Convolutions, then fully connected layers; `norm`: BatchNorm after each of them but the classifier."""
    convs = _same_convs(shape, plan, norm) if same_padding else _convs(shape[0], plan, norm)
    return _head(convs, shape, hidden, num_classes, norm)


def mlp(shape: tuple[int, ...], num_classes: int, hidden: Sequence[int] = (256, 256, 256)) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Flatten()]
    size = math.prod(shape)
    for width in hidden:
        layers += [nn.Linear(size, width), nn.ReLU()]
        size = width
    return [*layers, nn.Linear(size, num_classes)]


def paradox_fc(shape: tuple[int, ...], num_classes: int) -> list[nn.Module]:
    return mlp(shape, num_classes, (400, 200, 100, 100))


def paradox_conv(shape: tuple[int, ...], num_classes: int) -> list[nn.Module]:
    return _plain(shape, num_classes, [(16, 4, 2, 1)], [100], norm=False)


def dm_small(
    shape: tuple[int, ...], num_classes: int, norm: bool = False, same_padding: bool = False
) -> list[nn.Module]:
    return _plain(shape, num_classes, [(16, 4, 2, 0), (32, 4, 1, 0)], [100], norm, same_padding)


def dm_medium(
    shape: tuple[int, ...], num_classes: int, norm: bool = False, same_padding: bool = False
) -> list[nn.Module]:
    plan = [(32, 3, 1, 0), (32, 4, 2, 0), (64, 3, 1, 0), (64, 4, 2, 0)]
    return _plain(shape, num_classes, plan, [512, 512], norm, same_padding)


def _seven_layer_plan(width: int) -> list[tuple[int, int, int, int]]:
    return [(width, 3, 1, 1), (width, 3, 1, 1), (2 * width, 3, 2, 1), (2 * width, 3, 1, 1), (2 * width, 3, 1, 1)]


def dm_large(shape: tuple[int, ...], num_classes: int, width: int = 64, norm: bool = False) -> list[nn.Module]:
    return _plain(shape, num_classes, _seven_layer_plan(width), [512], norm)


def wide_cnn(shape: tuple[int, ...], num_classes: int, width: int = 128) -> list[nn.Module]:
    plan = [(width, 3, 1, 0), (2 * width, 3, 2, 0), (4 * width, 3, 2, 0)]
    return _plain(shape, num_classes, plan, [1024], norm=False, same_padding=True)


def cnn7(shape: tuple[int, ...], num_classes: int, width: int = 64, last_stride: int = 1) -> list[nn.Module]:
    """DM-large with BatchNorm after every convolution and the hidden layer; `last_stride` 2 for 64x64 inputs
    (Tiny-ImageNet)."""
    plan = _seven_layer_plan(width)
    plan[-1] = (2 * width, 3, last_stride, 1)
    return _plain(shape, num_classes, plan, [512], norm=True)


def _activation(name: str) -> nn.Module:
    if name not in ("relu", "minmax"):
        raise ValueError(f"activation: wanted relu or minmax, got {name!r}.")
    return nn.ReLU() if name == "relu" else MinMax()


def _globally_robust(
    shape: tuple[int, ...],
    num_classes: int,
    plan: Sequence[tuple[int, int, int]],
    hidden: Sequence[int],
    activation: str,
) -> list[nn.Module]:
    """Convolutions (channels, kernel, stride) padded to ceil(size / stride) pixels, then fully connected layers."""
    layers: list[nn.Module] = []
    for out, kernel, stride in plan:
        layers += [*_same_convolution(_output_shape(layers, shape), out, kernel, stride), _activation(activation)]
    size = math.prod(_output_shape(layers, shape))
    layers.append(nn.Flatten())
    for width in hidden:
        layers += [nn.Linear(size, width), _activation(activation)]
        size = width
    return [*layers, nn.Linear(size, num_classes)]


def gloro_2c2f(shape: tuple[int, ...], num_classes: int, activation: str = "relu") -> list[nn.Module]:
    return _globally_robust(shape, num_classes, [(16, 4, 2), (32, 4, 2)], [100], activation)


def gloro_4c3f(shape: tuple[int, ...], num_classes: int, activation: str = "relu") -> list[nn.Module]:
    plan = [(32, 3, 1), (32, 4, 2), (64, 3, 1), (64, 4, 2)]
    return _globally_robust(shape, num_classes, plan, [512, 512], activation)


def gloro_6c2f(shape: tuple[int, ...], num_classes: int, activation: str = "relu") -> list[nn.Module]:
    plan = [(32, 3, 1), (32, 3, 1), (32, 4, 2), (64, 3, 1), (64, 3, 1), (64, 4, 2)]
    return _globally_robust(shape, num_classes, plan, [512], activation)


def gloro_tin(shape: tuple[int, ...], num_classes: int, activation: str = "relu") -> list[nn.Module]:
    """For Tiny-ImageNet, without hidden fully connected layers."""
    plan = [(64, 3, 1), (64, 3, 1), (64, 4, 2), (128, 3, 1), (128, 4, 2), (256, 3, 1), (256, 4, 2)]
    return _globally_robust(shape, num_classes, plan, [], activation)


def wide_resnet(shape: tuple[int, ...], num_classes: int, width: int = 128) -> list[nn.Module]:
    layers = _convs(shape[0], [(16, 3, 1, 1)], norm=True)
    channels = 16
    for out, stride in [(width, 1), (2 * width, 2), (4 * width, 2)]:
        layers.append(_basic_block(channels, out, stride))
        channels = out
    return _head(layers, shape, [512], num_classes, norm=True)


def resnext(shape: tuple[int, ...], num_classes: int, width: int = 64) -> list[nn.Module]:
    layers = _convs(shape[0], [(64, 3, 1, 1)], norm=True)
    channels = 64
    for group_width, stride in [(width, 1), (2 * width, 2), (4 * width, 2)]:
        layers.append(_resnext_block(channels, group_width, stride))
        channels = 2 * group_width
    return _head(layers, shape, [512], num_classes, norm=True)


class _Residual(nn.Module):
    """ReLU(body(x) + shortcut(x)) with a 1x1 convolution and BatchNorm as the shortcut."""

    def __init__(self, body: nn.Sequential, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))
        self.out_channels = out_channels
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, C, H, W] -> [B, out_channels, H / stride, W / stride]
        return F.relu(self.body(x) + self.shortcut(x))


def _basic_block(in_channels: int, out_channels: int, stride: int) -> _Residual:
    body = nn.Sequential(
        *_convs(in_channels, [(out_channels, 3, stride, 1)], norm=True),
        nn.Conv2d(out_channels, out_channels, 3, 1, 1),
        nn.BatchNorm2d(out_channels),
    )
    return _Residual(body, in_channels, out_channels, stride)


def _resnext_block(in_channels: int, group_width: int, stride: int) -> _Residual:
    body = nn.Sequential(
        *_convs(in_channels, [(group_width, 1, 1, 0)], norm=True),
        nn.Conv2d(group_width, group_width, 3, stride, 1, groups=2),
        nn.BatchNorm2d(group_width),
        nn.ReLU(),
        nn.Conv2d(group_width, 2 * group_width, 1),
        nn.BatchNorm2d(2 * group_width),
    )
    return _Residual(body, in_channels, 2 * group_width, stride)
