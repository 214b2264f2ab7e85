"""Differentiable primitives, one a file: the autograd function and the public function of each stem."""

from fastbound.ops.interval_conv2d import interval_conv2d
from fastbound.ops.interval_linear import interval_linear
from fastbound.ops.interval_margin import interval_margin
from fastbound.ops.interval_norm_relu import interval_norm_relu, interval_norm_relu_statistics

__all__ = [
    "interval_conv2d",
    "interval_linear",
    "interval_margin",
    "interval_norm_relu",
    "interval_norm_relu_statistics",
]
