"""The compiled module, built from csrc/; written by tests/write_stub.py.

A pass takes numbers (sizes from 0 on), then tensors that it reads, then those that it writes: in the dtype of the first
one, or if "computed" in that of the computations, float32 for half precision. On a CPU all passes take float32 and
float64, those over maps bfloat16 too; on a GPU those with CUDA code take all four. `passes` says the same as data.
"""

from typing import Any

from torch import Tensor

built_with_cuda: bool
cuda_archs: tuple[str, ...]
isa: str  # "base", "avx2" or "avx512"
passes: dict[str, list[dict[str, Any]]]

# fmt: off
def cuda_problem(device: int) -> str: ...
def crown_concretize_fwd(
    batch: int, functions: int, size: int,
    rows: Tensor,  # [batch, functions, size]
    center: Tensor, radius: Tensor,  # [batch, size]
    out: Tensor,  # [batch, functions], written
    /) -> None: ...
def crown_concretize_bwd(
    batch: int, functions: int, size: int,
    grad: Tensor,  # [batch, functions]
    rows: Tensor,  # [batch, functions, size]
    center: Tensor, radius: Tensor,  # [batch, size]
    out_rows: Tensor | None,  # [batch, functions, size], written
    out_center: Tensor | None, out_radius: Tensor | None,  # [batch, size], written
    /) -> None: ...
def crown_relu_fwd(
    batch: int, functions: int, outer: int, channels: int, inner: int, slope: float,
    relaxation: int,
    rows: Tensor,  # [batch, functions, outer, channels, inner]
    center: Tensor, radius: Tensor,  # [batch, outer, channels, inner]
    scale: Tensor | None, shift: Tensor | None, offset: Tensor | None,  # [channels], computed
    out_rows: Tensor,  # [batch, functions, outer, channels, inner], written
    bias: Tensor,  # [batch, functions], written
    /) -> None: ...
def crown_relu_bwd(
    batch: int, functions: int, outer: int, channels: int, inner: int, slope: float,
    relaxation: int,
    grad_rows: Tensor | None,  # [batch, functions, outer, channels, inner]
    grad_bias: Tensor | None,  # [batch, functions]
    kept: Tensor,  # [batch, functions, outer, channels, inner]
    center: Tensor, radius: Tensor,  # [batch, outer, channels, inner]
    scale: Tensor | None, shift: Tensor | None, offset: Tensor | None,  # [channels], computed
    out_rows: Tensor,  # [batch, functions, outer, channels, inner], written
    out_center: Tensor, out_radius: Tensor,  # [batch, outer, channels, inner], written
    out_channels: Tensor,  # [3, channels], computed, written
    /) -> None: ...
def crown_windows_lines(
    batch: int, functions: int, height: int, width: int, channels: int,
    map_height: int, map_width: int, stride_y: int, stride_x: int, start_y: int,
    start_x: int,
    values: Tensor,  # [batch, functions, height, width, channels]
    base: Tensor,  # [batch, functions, 2], int64
    lower_slope: Tensor, lower_offset: Tensor | None, upper_slope: Tensor,
    upper_offset: Tensor,  # [batch, map_height, map_width, channels]
    out: Tensor,  # [batch, functions, height, width, channels], written
    bias: Tensor,  # [batch, functions], written
    /) -> None: ...
def crown_windows_concretize(
    batch: int, functions: int, height: int, width: int, channels: int,
    map_height: int, map_width: int, stride_y: int, stride_x: int, start_y: int,
    start_x: int,
    values: Tensor,  # [batch, functions, height, width, channels]
    base: Tensor,  # [batch, functions, 2], int64
    center: Tensor, radius: Tensor,  # [batch, map_height, map_width, channels]
    out: Tensor,  # [batch, functions], written
    /) -> None: ...
def crown_windows_fold(
    count: int, height: int, width: int, kernel_height: int, kernel_width: int,
    channels: int, map_height: int, map_width: int, stride_y: int, stride_x: int,
    padding_y: int, padding_x: int, dilation_y: int, dilation_x: int,
    columns: Tensor,  # [count, height, width, kernel_height, kernel_width, channels]
    out: Tensor,  # [count, map_height, map_width, channels], written
    /) -> None: ...
def interval_margin_fwd(
    batch: int, features: int, classes: int,
    radius: Tensor,  # [batch, features]
    weight: Tensor,  # [classes, features]
    labels: Tensor,  # [batch], int64, below classes
    out: Tensor,  # [batch, classes - 1], written
    /) -> None: ...
def interval_margin_bwd(
    batch: int, features: int, classes: int,
    grad: Tensor,  # [batch, classes - 1]
    radius: Tensor,  # [batch, features]
    weight: Tensor,  # [classes, features]
    labels: Tensor,  # [batch], int64, below classes
    grad_radius: Tensor | None,  # [batch, features], written
    grad_weight: Tensor | None,  # [classes, features], written
    /) -> None: ...
def norm_statistics(
    outer: int, channels: int, inner: int,
    x: Tensor,  # [outer, channels, inner]
    mean: Tensor, var: Tensor,  # [channels], computed, written
    /) -> None: ...
def interval_norm_relu_fwd(
    outer: int, channels: int, inner: int, streams: int, slope: float,
    stack: Tensor,  # [streams, outer, channels, inner]
    radius: Tensor,  # [outer, channels, inner]
    scale: Tensor | None, shift: Tensor | None,  # [channels], computed
    out_stack: Tensor,  # [streams, outer, channels, inner], written
    out_radius: Tensor,  # [outer, channels, inner], written
    /) -> None: ...
def interval_norm_relu_bwd_sums(
    outer: int, channels: int, inner: int, streams: int, slope: float,
    grad_stack: Tensor,  # [streams, outer, channels, inner]
    grad_radius: Tensor | None,  # [outer, channels, inner]
    stack: Tensor,  # [streams, outer, channels, inner]
    radius: Tensor,  # [outer, channels, inner]
    scale: Tensor | None, shift: Tensor | None,  # [channels], computed
    sum_scale: Tensor, sum_shift: Tensor,  # [channels], computed, written
    /) -> None: ...
def interval_norm_relu_bwd(
    outer: int, channels: int, inner: int, streams: int, slope: float,
    grad_stack: Tensor,  # [streams, outer, channels, inner]
    grad_radius: Tensor | None,  # [outer, channels, inner]
    stack: Tensor,  # [streams, outer, channels, inner]
    radius: Tensor,  # [outer, channels, inner]
    scale: Tensor | None, shift: Tensor | None, nominal_mul: Tensor | None,
    nominal_add: Tensor | None,  # [channels], computed
    out_grad_stack: Tensor,  # [streams, outer, channels, inner], written
    out_grad_radius: Tensor,  # [outer, channels, inner], written
    /) -> None: ...
def interval_norm_relu_moments_fwd(
    outer: int, channels: int, inner: int, streams: int, slope: float,
    stack: Tensor,  # [streams, outer, channels, inner]
    radius: Tensor,  # [outer, channels, inner]
    scale: Tensor | None, shift: Tensor | None,  # [channels], computed
    out_stack: Tensor,  # [streams, outer, channels, inner], written
    out_radius: Tensor,  # [outer, channels, inner], written
    moments: Tensor,  # [8], computed, written
    /) -> None: ...
def interval_norm_relu_moments_bwd_sums(
    outer: int, channels: int, inner: int, streams: int, slope: float,
    grad_stack: Tensor,  # [streams, outer, channels, inner]
    grad_radius: Tensor | None,  # [outer, channels, inner]
    stack: Tensor,  # [streams, outer, channels, inner]
    radius: Tensor,  # [outer, channels, inner]
    scale: Tensor | None, shift: Tensor | None,  # [channels], computed
    grad_moments: Tensor, moments: Tensor,  # [8], computed
    sum_scale: Tensor, sum_shift: Tensor,  # [channels], computed, written
    /) -> None: ...
def interval_norm_relu_moments_bwd(
    outer: int, channels: int, inner: int, streams: int, slope: float,
    grad_stack: Tensor,  # [streams, outer, channels, inner]
    grad_radius: Tensor | None,  # [outer, channels, inner]
    stack: Tensor,  # [streams, outer, channels, inner]
    radius: Tensor,  # [outer, channels, inner]
    scale: Tensor | None, shift: Tensor | None,  # [channels], computed
    grad_moments: Tensor, moments: Tensor,  # [8], computed
    nominal_mul: Tensor | None, nominal_add: Tensor | None,  # [channels], computed
    out_grad_stack: Tensor,  # [streams, outer, channels, inner], written
    out_grad_radius: Tensor,  # [outer, channels, inner], written
    /) -> None: ...
def signed_weight_grad(
    count: int,
    grad: Tensor, grad_abs: Tensor, weight: Tensor,  # [count]
    sum: Tensor,  # [count], computed, written
    /) -> None: ...
def singleprop_norm_relu_fwd(
    outer: int, channels: int, inner: int, activation: int,
    nominal: Tensor, radius: Tensor,  # [outer, channels, inner]
    scale: Tensor | None, shift: Tensor | None,  # [channels], computed
    out_nominal: Tensor, out_radius: Tensor,  # [outer, channels, inner], written
    /) -> None: ...
def singleprop_norm_relu_bwd_sums(
    outer: int, channels: int, inner: int, activation: int,
    grad_nominal: Tensor, grad_radius: Tensor, nominal: Tensor, radius: Tensor,  # [outer, channels, inner]
    scale: Tensor | None, shift: Tensor | None,  # [channels], computed
    sum_scale: Tensor, sum_shift: Tensor,  # [channels], computed, written
    /) -> None: ...
def singleprop_norm_relu_bwd(
    outer: int, channels: int, inner: int, activation: int,
    grad_nominal: Tensor, grad_radius: Tensor, nominal: Tensor, radius: Tensor,  # [outer, channels, inner]
    scale: Tensor | None, shift: Tensor | None, nominal_mul: Tensor | None,
    nominal_add: Tensor | None,  # [channels], computed
    out_grad_nominal: Tensor, out_grad_radius: Tensor,  # [outer, channels, inner], written
    /) -> None: ...
def swap_axes(
    outer: int, rows: int, columns: int,
    x: Tensor,  # [outer, rows, columns]
    out: Tensor,  # [outer, columns, rows], written
    /) -> None: ...
