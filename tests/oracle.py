"""Interval propagation written a second time: float64, (lower, upper), products by W+ = max(W, 0) and W- = min(W, 0).

The graph of the unmodified module comes from ``torch.fx``; nothing of the library is used. BatchNorm takes its batch
statistics from the clean activations, which ride along.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

ENDS = ("lower", "upper", "clean")


@dataclass
class Range:
    lower: Tensor
    upper: Tensor
    clean: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.clean.shape

    def each(self, function: Callable[[Tensor], Tensor]) -> Range:
        """A non-decreasing function of all elements."""
        return Range(function(self.lower), function(self.upper), function(self.clean))


def propagate(model: nn.Module, lower: Tensor, upper: Tensor, clean: Tensor, copied: bool = True) -> Range:
    """Bounds of ``model`` on [lower, upper], in the mode the model is in; the model stays as it is."""
    model = copy.deepcopy(model).double() if copied else model
    graph = fx.Tracer().trace(model)
    return _Propagation(fx.GraphModule(model, graph)).run(Range(lower.double(), upper.double(), clean.double()))


def affine(x: Range, function: Callable[..., Tensor], weight: Tensor, bias: Tensor | None) -> Range:
    positive, negative = weight.clamp(min=0), weight.clamp(max=0)
    return Range(
        function(x.lower, positive, bias) + function(x.upper, negative, None),
        function(x.upper, positive, bias) + function(x.lower, negative, None),
        function(x.clean, weight, bias),
    )


def scaled(x: Range, factor: Any) -> Range:
    factor = torch.as_tensor(factor, dtype=torch.float64)
    one, other = x.lower * factor, x.upper * factor
    return Range(torch.minimum(one, other), torch.maximum(one, other), x.clean * factor)


def added(x: Any, y: Any) -> Range:
    x, y = (v if isinstance(v, Range) else Range(*(torch.as_tensor(v, dtype=torch.float64),) * 3) for v in (x, y))
    return Range(x.lower + y.lower, x.upper + y.upper, x.clean + y.clean)


def normalised(x: Range, module: nn.Module) -> Range:
    dims = [d for d in range(x.clean.dim()) if d != 1]
    if module.training or module.running_mean is None:
        mean = x.clean.mean(dims)
        var = ((x.clean - mean.view(-1, *(1,) * (x.clean.dim() - 2))) ** 2).mean(dims)
    else:
        mean, var = module.running_mean, module.running_var
    gain = 1 / torch.sqrt(var + module.eps)
    bias = torch.zeros_like(mean)
    if module.affine:
        gain, bias = gain * module.weight, module.bias
    shape = (-1, *(1,) * (x.clean.dim() - 2))
    return added(scaled(x, gain.view(shape)), (bias - mean * gain).view(shape))


def convolved(x: Range, module: Any) -> Range:
    name = type(module).__name__ if type(module).__module__.startswith("torch.nn") else type(module).__mro__[1].__name__
    dims = int(name[-2])
    if "Transpose" in name:
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]
        settings = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)
        return affine(x, lambda v, w, b: function(v, w, b, *settings), module.weight, module.bias)
    function = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    padding = module.padding
    if module.padding_mode != "zeros":
        ends = module._reversed_padding_repeated_twice
        x, padding = x.each(lambda v: F.pad(v, ends, mode=module.padding_mode)), 0
    settings = (module.stride, padding, module.dilation, module.groups)
    return affine(x, lambda v, w, b: function(v, w, b, *settings), module.weight, module.bias)


def absolute(x: Range) -> Range:
    spans = (x.lower <= 0) & (x.upper >= 0)
    one, other = x.lower.abs(), x.upper.abs()
    return Range(torch.where(spans, 0.0, torch.minimum(one, other)), torch.maximum(one, other), x.clean.abs())


INCREASING = (nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.ELU, nn.ReLU6, nn.Hardtanh, nn.Softplus)
SAME_PATH = (  # linear with coefficients >= 0, or a maximum: lower from lower, upper from upper
    *(nn.Flatten, nn.Identity, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.Upsample),
    *(nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.PixelShuffle, nn.Unflatten, nn.ConstantPad2d),
)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Propagation(fx.Interpreter):
    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module, (x,) = self.fetch_attr(target), args
        if isinstance(module, nn.Linear):
            return affine(x, F.linear, module.weight, module.bias)
        if isinstance(module, CONVOLUTIONS):
            return convolved(x, module)
        if isinstance(module, NORMS):
            return normalised(x, module)
        if isinstance(module, INCREASING + SAME_PATH):
            module = copy.copy(module)
            if hasattr(module, "inplace"):
                module.inplace = False
            return x.each(module)
        if isinstance(module, nn.Dropout) and not module.training:
            return x
        raise NotImplementedError(f"oracle: {module}")

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in (operator.add, torch.add, operator.iadd):
            return added(*args)
        if target in (operator.sub, torch.sub):
            return added(args[0], scaled(args[1], -1.0) if isinstance(args[1], Range) else -args[1])
        if target in (operator.mul, torch.mul):
            return scaled(args[0], args[1]) if isinstance(args[0], Range) else scaled(args[1], args[0])
        if target is operator.truediv:
            return scaled(args[0], 1.0 / args[1])
        if target is operator.neg:
            return scaled(args[0], -1.0)
        if target is torch.conv2d:
            return affine(args[0], lambda v, w, b: F.conv2d(v, w, b, *args[3:], **kwargs), args[1], args[2])
        if target is torch.abs:
            return absolute(args[0])
        if target in (torch.cat, torch.stack):
            parts, rest = args[0], args[1:]
            return Range(*(target([getattr(p, end) for p in parts], *rest, **kwargs) for end in ENDS))
        if target in (torch.chunk, torch.split):
            ends = [target(getattr(args[0], end), *args[1:], **kwargs) for end in ENDS]
            return [Range(*parts) for parts in zip(*ends)]
        if target is operator.getitem and not isinstance(args[0], Range):
            return args[0][args[1]]
        if target is getattr:
            return getattr(*args)
        kwargs = {name: value for name, value in kwargs.items() if name != "inplace"}
        return args[0].each(lambda v: target(v, *args[1:], **kwargs))

    def call_method(self, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target == "size":
            return args[0].clean.size(*args[1:])
        if target == "chunk":
            return self.call_function(torch.chunk, args, kwargs)
        assert target in ("relu", "flatten", "view", "mean", "permute")
        return args[0].each(lambda v: getattr(v.contiguous(), target)(*args[1:], **kwargs))
