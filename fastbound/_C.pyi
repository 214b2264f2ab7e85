"""The compiled module, built from csrc/; written by csrc/stub.py.

A pass takes numbers (sizes from 0 on), then tensors that it reads, then those that it writes. "stored" is the dtype of
the first tensor, and "computed" that of its computations: float32 for half precision, else the same. On a CPU all
passes take float32 and float64, those over maps bfloat16 too; on a GPU those with CUDA code take all four. `passes`
says the same as data.
"""

from typing import Any

from torch import Tensor

built_with_cuda: bool
cuda_archs: tuple[str, ...]
isa: str  # "base", "avx2" or "avx512"
passes: dict[str, list[dict[str, Any]]]

def cuda_problem(device: int) -> str: ...
def crown_concretize_fwd(
    batch: int,
    functions: int,
    size: int,
    rows: Tensor,  # [batch, functions, size], stored
    center: Tensor,  # [batch, size], stored
    radius: Tensor,  # [batch, size], stored
    out: Tensor,  # [batch, functions], stored, written
    /,
) -> None: ...
def crown_concretize_bwd(
    batch: int,
    functions: int,
    size: int,
    grad: Tensor,  # [batch, functions], stored
    rows: Tensor,  # [batch, functions, size], stored
    center: Tensor,  # [batch, size], stored
    radius: Tensor,  # [batch, size], stored
    out_rows: Tensor | None,  # [batch, functions, size], stored, written
    out_center: Tensor | None,  # [batch, size], stored, written
    out_radius: Tensor | None,  # [batch, size], stored, written
    /,
) -> None: ...
def crown_relu_fwd(
    batch: int,
    functions: int,
    outer: int,
    channels: int,
    inner: int,
    slope: float,  # 0.0 to 1.0
    relaxation: int,  # 0 to 3
    rows: Tensor,  # [batch, functions, outer, channels, inner], stored
    center: Tensor,  # [batch, outer, channels, inner], stored
    radius: Tensor,  # [batch, outer, channels, inner], stored
    scale: Tensor | None,  # [channels], computed
    shift: Tensor | None,  # [channels], computed
    offset: Tensor | None,  # [channels], computed
    out_rows: Tensor,  # [batch, functions, outer, channels, inner], stored, written
    bias: Tensor,  # [batch, functions], stored, written
    /,
) -> None: ...
def crown_relu_bwd(
    batch: int,
    functions: int,
    outer: int,
    channels: int,
    inner: int,
    slope: float,  # 0.0 to 1.0
    relaxation: int,  # 0 to 3
    grad_rows: Tensor | None,  # [batch, functions, outer, channels, inner], stored
    grad_bias: Tensor | None,  # [batch, functions], stored
    kept: Tensor,  # [batch, functions, outer, channels, inner], stored
    center: Tensor,  # [batch, outer, channels, inner], stored
    radius: Tensor,  # [batch, outer, channels, inner], stored
    scale: Tensor | None,  # [channels], computed
    shift: Tensor | None,  # [channels], computed
    offset: Tensor | None,  # [channels], computed
    out_rows: Tensor,  # [batch, functions, outer, channels, inner], stored, written
    out_center: Tensor,  # [batch, outer, channels, inner], stored, written
    out_radius: Tensor,  # [batch, outer, channels, inner], stored, written
    out_channels: Tensor,  # [3, channels], computed, written
    /,
) -> None: ...
def crown_windows_lines(
    batch: int,
    functions: int,
    height: int,
    width: int,
    channels: int,
    map_height: int,
    map_width: int,
    stride_y: int,  # -2147483648 to 2147483648
    stride_x: int,  # -2147483648 to 2147483648
    start_y: int,  # -2147483648 to 2147483648
    start_x: int,  # -2147483648 to 2147483648
    values: Tensor,  # [batch, functions, height, width, channels], stored
    base: Tensor,  # [batch, functions, 2], int64
    lower_slope: Tensor,  # [batch, map_height, map_width, channels], stored
    lower_offset: Tensor | None,  # [batch, map_height, map_width, channels], stored
    upper_slope: Tensor,  # [batch, map_height, map_width, channels], stored
    upper_offset: Tensor,  # [batch, map_height, map_width, channels], stored
    out: Tensor,  # [batch, functions, height, width, channels], stored, written
    bias: Tensor,  # [batch, functions], stored, written
    /,
) -> None: ...
def crown_windows_concretize(
    batch: int,
    functions: int,
    height: int,
    width: int,
    channels: int,
    map_height: int,
    map_width: int,
    stride_y: int,  # -2147483648 to 2147483648
    stride_x: int,  # -2147483648 to 2147483648
    start_y: int,  # -2147483648 to 2147483648
    start_x: int,  # -2147483648 to 2147483648
    values: Tensor,  # [batch, functions, height, width, channels], stored
    base: Tensor,  # [batch, functions, 2], int64
    center: Tensor,  # [batch, map_height, map_width, channels], stored
    radius: Tensor,  # [batch, map_height, map_width, channels], stored
    out: Tensor,  # [batch, functions], stored, written
    /,
) -> None: ...
def crown_windows_fold(
    count: int,
    height: int,
    width: int,
    kernel_height: int,
    kernel_width: int,
    channels: int,
    map_height: int,
    map_width: int,
    stride_y: int,  # 1 to 2147483648
    stride_x: int,  # 1 to 2147483648
    padding_y: int,  # 0 to 2147483648
    padding_x: int,  # 0 to 2147483648
    dilation_y: int,  # 1 to 2147483648
    dilation_x: int,  # 1 to 2147483648
    columns: Tensor,  # [count, height, width, kernel_height, kernel_width, channels], stored
    out: Tensor,  # [count, map_height, map_width, channels], stored, written
    /,
) -> None: ...
def interval_margin_fwd(
    batch: int,
    features: int,
    classes: int,  # from 1
    radius: Tensor,  # [batch, features], stored
    weight: Tensor,  # [classes, features], stored
    labels: Tensor,  # [batch], int64, below classes
    out: Tensor,  # [batch, classes - 1], stored, written
    /,
) -> None: ...
def interval_margin_bwd(
    batch: int,
    features: int,
    classes: int,  # from 1
    grad: Tensor,  # [batch, classes - 1], stored
    radius: Tensor,  # [batch, features], stored
    weight: Tensor,  # [classes, features], stored
    labels: Tensor,  # [batch], int64, below classes
    grad_radius: Tensor | None,  # [batch, features], stored, written
    grad_weight: Tensor | None,  # [classes, features], stored, written
    /,
) -> None: ...
def norm_statistics(
    outer: int,
    channels: int,
    inner: int,
    x: Tensor,  # [outer, channels, inner], stored
    mean: Tensor,  # [channels], computed, written
    var: Tensor,  # [channels], computed, written
    /,
) -> None: ...
def interval_norm_relu_fwd(
    outer: int,
    channels: int,
    inner: int,
    streams: int,  # 1 to 2
    slope: float,  # 0.0 to 1.0
    stack: Tensor,  # [streams, outer, channels, inner], stored
    radius: Tensor,  # [outer, channels, inner], stored
    scale: Tensor | None,  # [channels], computed
    shift: Tensor | None,  # [channels], computed
    out_stack: Tensor,  # [streams, outer, channels, inner], stored, written
    out_radius: Tensor,  # [outer, channels, inner], stored, written
    /,
) -> None: ...
def interval_norm_relu_bwd_sums(
    outer: int,
    channels: int,
    inner: int,
    streams: int,  # 1 to 2
    slope: float,  # 0.0 to 1.0
    grad_stack: Tensor,  # [streams, outer, channels, inner], stored
    grad_radius: Tensor | None,  # [outer, channels, inner], stored
    stack: Tensor,  # [streams, outer, channels, inner], stored
    radius: Tensor,  # [outer, channels, inner], stored
    scale: Tensor | None,  # [channels], computed
    shift: Tensor | None,  # [channels], computed
    sum_scale: Tensor,  # [channels], computed, written
    sum_shift: Tensor,  # [channels], computed, written
    /,
) -> None: ...
def interval_norm_relu_bwd(
    outer: int,
    channels: int,
    inner: int,
    streams: int,  # 1 to 2
    slope: float,  # 0.0 to 1.0
    grad_stack: Tensor,  # [streams, outer, channels, inner], stored
    grad_radius: Tensor | None,  # [outer, channels, inner], stored
    stack: Tensor,  # [streams, outer, channels, inner], stored
    radius: Tensor,  # [outer, channels, inner], stored
    scale: Tensor | None,  # [channels], computed
    shift: Tensor | None,  # [channels], computed
    nominal_mul: Tensor | None,  # [channels], computed
    nominal_add: Tensor | None,  # [channels], computed
    out_grad_stack: Tensor,  # [streams, outer, channels, inner], stored, written
    out_grad_radius: Tensor,  # [outer, channels, inner], stored, written
    /,
) -> None: ...
def interval_norm_relu_moments_fwd(
    outer: int,
    channels: int,
    inner: int,
    streams: int,  # 1 to 2
    slope: float,  # 0.0 to 1.0
    stack: Tensor,  # [streams, outer, channels, inner], stored
    radius: Tensor,  # [outer, channels, inner], stored
    scale: Tensor | None,  # [channels], computed
    shift: Tensor | None,  # [channels], computed
    out_stack: Tensor,  # [streams, outer, channels, inner], stored, written
    out_radius: Tensor,  # [outer, channels, inner], stored, written
    moments: Tensor,  # [8], computed, written
    /,
) -> None: ...
def interval_norm_relu_moments_bwd_sums(
    outer: int,
    channels: int,
    inner: int,
    streams: int,  # 1 to 2
    slope: float,  # 0.0 to 1.0
    grad_stack: Tensor,  # [streams, outer, channels, inner], stored
    grad_radius: Tensor | None,  # [outer, channels, inner], stored
    stack: Tensor,  # [streams, outer, channels, inner], stored
    radius: Tensor,  # [outer, channels, inner], stored
    scale: Tensor | None,  # [channels], computed
    shift: Tensor | None,  # [channels], computed
    grad_moments: Tensor,  # [8], computed
    moments: Tensor,  # [8], computed
    sum_scale: Tensor,  # [channels], computed, written
    sum_shift: Tensor,  # [channels], computed, written
    /,
) -> None: ...
def interval_norm_relu_moments_bwd(
    outer: int,
    channels: int,
    inner: int,
    streams: int,  # 1 to 2
    slope: float,  # 0.0 to 1.0
    grad_stack: Tensor,  # [streams, outer, channels, inner], stored
    grad_radius: Tensor | None,  # [outer, channels, inner], stored
    stack: Tensor,  # [streams, outer, channels, inner], stored
    radius: Tensor,  # [outer, channels, inner], stored
    scale: Tensor | None,  # [channels], computed
    shift: Tensor | None,  # [channels], computed
    grad_moments: Tensor,  # [8], computed
    moments: Tensor,  # [8], computed
    nominal_mul: Tensor | None,  # [channels], computed
    nominal_add: Tensor | None,  # [channels], computed
    out_grad_stack: Tensor,  # [streams, outer, channels, inner], stored, written
    out_grad_radius: Tensor,  # [outer, channels, inner], stored, written
    /,
) -> None: ...
def signed_weight_grad(
    count: int,
    grad: Tensor,  # [count], stored
    grad_abs: Tensor,  # [count], stored
    weight: Tensor,  # [count], stored
    sum: Tensor,  # [count], computed, written
    /,
) -> None: ...
def singleprop_norm_relu_fwd(
    outer: int,
    channels: int,
    inner: int,
    activation: int,  # 0 to 2
    nominal: Tensor,  # [outer, channels, inner], stored
    radius: Tensor,  # [outer, channels, inner], stored
    scale: Tensor | None,  # [channels], computed
    shift: Tensor | None,  # [channels], computed
    out_nominal: Tensor,  # [outer, channels, inner], stored, written
    out_radius: Tensor,  # [outer, channels, inner], stored, written
    /,
) -> None: ...
def singleprop_norm_relu_bwd_sums(
    outer: int,
    channels: int,
    inner: int,
    activation: int,  # 0 to 2
    grad_nominal: Tensor,  # [outer, channels, inner], stored
    grad_radius: Tensor,  # [outer, channels, inner], stored
    nominal: Tensor,  # [outer, channels, inner], stored
    radius: Tensor,  # [outer, channels, inner], stored
    scale: Tensor | None,  # [channels], computed
    shift: Tensor | None,  # [channels], computed
    sum_scale: Tensor,  # [channels], computed, written
    sum_shift: Tensor,  # [channels], computed, written
    /,
) -> None: ...
def singleprop_norm_relu_bwd(
    outer: int,
    channels: int,
    inner: int,
    activation: int,  # 0 to 2
    grad_nominal: Tensor,  # [outer, channels, inner], stored
    grad_radius: Tensor,  # [outer, channels, inner], stored
    nominal: Tensor,  # [outer, channels, inner], stored
    radius: Tensor,  # [outer, channels, inner], stored
    scale: Tensor | None,  # [channels], computed
    shift: Tensor | None,  # [channels], computed
    nominal_mul: Tensor | None,  # [channels], computed
    nominal_add: Tensor | None,  # [channels], computed
    out_grad_nominal: Tensor,  # [outer, channels, inner], stored, written
    out_grad_radius: Tensor,  # [outer, channels, inner], stored, written
    /,
) -> None: ...
def swap_axes(
    outer: int,
    rows: int,
    columns: int,
    x: Tensor,  # [outer, rows, columns], stored
    out: Tensor,  # [outer, columns, rows], stored, written
    /,
) -> None: ...
