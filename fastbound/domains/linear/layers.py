"""Layers with weights: linear, convolutions, BatchNorm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.linear.windows import convolution_window, per_dimension, require_dim
from fastbound.domains.location import module_path
from fastbound.domains.records import Convolution, Linear, Norm
from fastbound.domains.rules import rule
from fastbound.domains.streams import Streams, as_stored, emit
from fastbound.domains.tape import Node, PendingFlatten, PendingNorm
from fastbound.ops import (
    interval_conv2d,
    interval_linear,
    interval_norm_relu_moments_with_box,
    interval_norm_relu_statistics,
    interval_norm_relu_with_box,
)
from fastbound.ops.autocast import maps_lowered_by_autocast, read_as
from fastbound.ops.checks import refuse, require_vector
from fastbound.ops.layout import channels_last
from fastbound.primitives.convolution import as_kernel, as_map


@rule(Streams, F.linear)
def linear(input: Streams, weight: Tensor, bias: Tensor | None = None) -> Streams:
    _require_layer("linear", input, weight, bias)
    node = input.node
    if isinstance(node, PendingFlatten) and node.is_pending:
        parent = node.source
        if weight.shape[1] == parent.shape[1:].numel() and weight.numel() <= parent.stored[0].numel():
            columns = channels_last(weight.unflatten(1, parent.shape[1:])).permute(0, 2, 3, 1).flatten(1)
            streams = _linear_of_map(parent, columns, bias)
            return emit(Linear(weight, bias, columns), (input,), *streams, dtype=input.dtype)
    streams = interval_linear(*as_stored(node, "interval_linear"), weight, bias)
    return emit(Linear(weight, bias), (input,), *streams, dtype=input.dtype)


def _linear_of_map(parent: Node, columns: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """A linear layer [O, H W C] on a channels_last map: it is cheaper to reorder its weight than to flatten the map."""
    stack, radius = as_stored(parent, "interval_linear")
    rows = radius.permute(0, 2, 3, 1).flatten(1)
    return interval_linear(stack.permute(0, 1, 3, 4, 2).flatten(2), rows, columns, bias)


@rule(Streams, F.conv2d)
def conv2d(
    input: Streams,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Streams:
    _require_layer("conv2d", input, weight, bias)
    input, stride, padding, dilation = convolution_window("conv2d", 2, input, weight, stride, padding, dilation)
    record = Convolution(weight, bias, stride, padding, dilation, groups)
    stack, radius = as_stored(input.node, "interval_conv2d")
    streams = interval_conv2d(stack, radius, weight, bias, *record.geometry())
    return emit(record, (input,), *streams, dtype=input.dtype)


@rule(Streams, F.conv1d)
def conv1d(input: Streams, weight: Tensor, *args: Any, **kwargs: Any) -> Streams:
    return _conv_nd(F.conv1d, 1, input, weight, *args, **kwargs)


@rule(Streams, F.conv3d)
def conv3d(input: Streams, weight: Tensor, *args: Any, **kwargs: Any) -> Streams:
    return _conv_nd(F.conv3d, 3, input, weight, *args, **kwargs)


def _conv_nd(
    function: Callable[..., Tensor],
    spatial: int,
    input: Streams,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Streams:
    name = f"conv{spatial}d"
    _require_layer(name, input, weight, bias)
    input, stride, padding, dilation = convolution_window(name, spatial, input, weight, stride, padding, dilation)
    record = Convolution(weight, bias, stride, padding, dilation, groups)
    maps = as_stored(input.node, "interval_conv2d")
    streams = _convolved(*maps, weight, bias, function, stride, padding, dilation, groups)
    return emit(record, (input,), *streams, dtype=input.dtype)


@maps_lowered_by_autocast
def _convolved(
    stack: Tensor,  # [N, B, C, *]
    radius: Tensor,  # [B, C, *]
    weight: Tensor,  # [O, C / groups, *K], transposed: [C, O / groups, *K]
    bias: Tensor | None,  # [O]
    function: Callable[..., Tensor],
    *geometry: Any,
) -> tuple[Tensor, Tensor]:  # [N, B, O, *], [B, O, *]
    """Streams through a convolution of any kind, which torch computes."""
    weight, spatial = as_kernel(weight), weight.dim() - 2
    stack, radius = as_map(stack, spatial), as_map(radius, spatial)
    values = function(stack.flatten(0, 1), *read_as(radius.dtype, weight, bias), *geometry)
    # |W| before the conversion, so that both gradients are added up in the weight's own dtype.
    widths = function(radius, weight.abs().to(radius.dtype), None, *geometry)
    return values.unflatten(0, stack.shape[:2]), widths


def _transposed(function: Callable[..., Tensor], spatial: int) -> Callable[..., Streams]:
    def conv_transpose(
        input: Streams,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        dilation: int | Sequence[int] = 1,
    ) -> Streams:
        name = f"conv_transpose{spatial}d"
        _require_layer(name, input, weight, bias)
        require_dim(name, input, spatial + 2)
        stride, padding, output_padding, dilation = (
            per_dimension(v, spatial) for v in (stride, padding, output_padding, dilation)
        )
        record = Convolution(weight, bias, stride, padding, dilation, groups, True, output_padding)
        geometry = (stride, padding, output_padding, groups, dilation)
        streams = _convolved(*as_stored(input.node, "interval_conv2d"), weight, bias, function, *geometry)
        return emit(record, (input,), *streams, dtype=input.dtype)

    return conv_transpose


for _spatial, _function in ((1, F.conv_transpose1d), (2, F.conv_transpose2d), (3, F.conv_transpose3d)):
    rule(Streams, _function)(_transposed(_function, _spatial))


@rule(Streams, F.batch_norm)
def batch_norm(
    input: Streams,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Streams:
    """Batch statistics are those of the nominal stream. The layer waits for a ReLU, to run in the same pass."""
    node = input.node
    if len(node.shape) < 2:
        refuse(
            _this_batch_norm,
            "input",
            "a batch of channels [B, C, *]",
            tuple(node.shape),
            "unsqueeze a single sample: x[None]",
        )
    vectors = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for argument, tensor in vectors.items():
        if tensor is not None and tensor.dtype != input.dtype:
            raise TypeError(f"{_this_batch_norm()}: the box is {input.dtype}, the layer {tensor.dtype}; convert one.")
        require_vector(_this_batch_norm, argument, tensor, node.shape[1], "channel of maps", node.shape)
    if training:
        if not input.carries_nominal:
            raise ValueError(
                f"{_this_batch_norm()}: batch statistics are those of the clean activations, which this box "
                "does not carry; pass nominal=True to linf_box (or nominal= to box), or call model.eval()."
            )
        nominal = as_stored(node, "interval_norm_relu")[0][0]
        count = nominal.numel() // max(nominal.shape[1], 1)
        if count <= 1:
            raise ValueError(f"{_this_batch_norm()}: expected more than 1 value per channel, got {count}.")
        mean, var = interval_norm_relu_statistics(nominal)
        _update_running(running_mean, running_var, mean, var, momentum, count)
    else:
        if running_mean is None or running_var is None:
            raise ValueError(f"{_this_batch_norm()}: evaluation needs running statistics, and this layer has none.")
        # Copies, because torch's own BatchNorm updates the statistics without increasing their version.
        mean, var = running_mean.clone(), running_var.clone()
    record = Norm(mean, var, weight, bias, eps, training)
    return input.on_node(PendingNorm(record, node, node.shape, lambda: norm_relu(node, record, 1.0)), (input,))


def _this_batch_norm() -> str:
    return f"batch_norm{module_path()}"


def norm_relu(node: Node, norm: Norm | None, slope: float) -> tuple[Tensor, Tensor]:
    """The streams of a node [B, C, *] through an optional BatchNorm and a leaky ReLU, in one pass."""
    streams = as_stored(node, "interval_norm_relu")
    stack, radius, *box = interval_norm_relu_with_box(*streams, *_settings(norm, slope))
    if radius.requires_grad:
        node.set_box(*box)
    return stack, radius


def norm_relu_moments(node: Node, norm: Norm | None, slope: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same, and the moments [8] of the bounds before the ReLU, from the same pass."""
    streams = as_stored(node, "interval_norm_relu_moments")
    stack, radius, moments, *box = interval_norm_relu_moments_with_box(*streams, *_settings(norm, slope))
    if radius.requires_grad:
        node.set_box(*box)
    return stack, radius, moments


def _settings(norm: Norm | None, slope: float) -> tuple[Any, ...]:
    if norm is None:
        return (None,) * 4 + (0.0, slope)
    return norm.mean, norm.var, norm.weight, norm.bias, norm.eps, slope, norm.batch_statistics


@torch.no_grad()
def _update_running(
    running_mean: Tensor | None, running_var: Tensor | None, mean: Tensor, var: Tensor, momentum: float, count: int
) -> None:  # all [C]
    if running_mean is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    if running_var is not None:
        running_var.lerp_(var.to(running_var.dtype) * (count / (count - 1)), momentum)


def _require_layer(name: str, input: Any, weight: Any, bias: Any) -> None:
    if not isinstance(input, Streams) or isinstance(weight, Streams) or isinstance(bias, Streams):
        raise NotImplementedError(f"{name}{module_path()}: wanted an abstract input, constant weight and bias.")
    if weight.dtype != input.dtype:
        raise TypeError(f"{name}{module_path()}: the box is {input.dtype}, the weight {weight.dtype}; convert one.")
