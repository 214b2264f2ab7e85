"""Differentiable primitives, one file each: the autograd function and the public function of each stem."""

from fastbound.ops.crown_concretize import crown_concretize
from fastbound.ops.crown_conv2d import crown_conv2d
from fastbound.ops.crown_linear import crown_linear
from fastbound.ops.crown_relu import crown_relu
from fastbound.ops.interval_conv2d import interval_conv2d
from fastbound.ops.interval_linear import interval_linear
from fastbound.ops.interval_margin import interval_margin
from fastbound.ops.interval_norm_relu import (
    interval_norm_relu,
    interval_norm_relu_statistics,
    interval_norm_relu_with_box,
)
from fastbound.ops.interval_norm_relu_moments import interval_norm_relu_moments, interval_norm_relu_moments_with_box
from fastbound.ops.lipschitz_power import lipschitz_power
from fastbound.ops.singleprop_norm_relu import singleprop_norm_relu

__all__ = [
    "crown_concretize",
    "crown_conv2d",
    "crown_linear",
    "crown_relu",
    "interval_conv2d",
    "interval_linear",
    "interval_margin",
    "interval_norm_relu",
    "interval_norm_relu_moments",
    "interval_norm_relu_moments_with_box",
    "interval_norm_relu_statistics",
    "interval_norm_relu_with_box",
    "lipschitz_power",
    "singleprop_norm_relu",
]
