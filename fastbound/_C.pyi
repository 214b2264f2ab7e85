"""The compiled module, built from csrc/. Tensors go in as the addresses of their first elements, 0 for None.

``dtype`` is 0 for float32 and 1 for float64, on CUDA also 2 for float16 and 3 for bfloat16; on CPU the passes over maps
between products, and `signed_weight_grad`, take 3 too. A map in memory is (outer, channels, inner). The functions of
CUDA exist where the module was built with it; they run on ``stream`` of ``device``, and those with a ``workspace`` must
be lent as many doubles as their ``_workspace`` says.
"""

built_with_cuda: bool
cuda_archs: tuple[str, ...]
isa: str  # "base", "avx2" or "avx512"

# fmt: off
def cuda_problem(device: int) -> str: ...

_Pair = tuple[int, int]
_Triple = tuple[int, int, int]

def crown_concretize_fwd(
    dtype: int, rows: int, center: int, radius: int, out: int, batch: int, functions: int, size: int, threads: int
) -> None: ...
def crown_concretize_fwd_workspace(dtype: int, batch: int, functions: int, size: int) -> int: ...
def crown_concretize_fwd_cuda(
    dtype: int, rows: int, center: int, radius: int, out: int, batch: int, functions: int, size: int, workspace: int,
    stream: int, device: int
) -> None: ...
def crown_concretize_bwd(
    dtype: int, grad: int, rows: int, center: int, radius: int, out_rows: int, out_center: int, out_radius: int,
    batch: int, functions: int, size: int, threads: int
) -> None: ...
def crown_concretize_bwd_cuda(
    dtype: int, grad: int, rows: int, center: int, radius: int, out_rows: int, out_center: int, out_radius: int,
    batch: int, functions: int, size: int, stream: int, device: int
) -> None: ...
def crown_relu_fwd(
    dtype: int, rows: int, center: int, radius: int, scale: int, shift: int, offset: int, out_rows: int, bias: int,
    batch: int, functions: int, outer: int, channels: int, inner: int, slope: float, relaxation: int, threads: int
) -> None: ...
def crown_relu_fwd_workspace(dtype: int, batch: int, functions: int, outer: int, channels: int, inner: int) -> int: ...
def crown_relu_fwd_cuda(
    dtype: int, rows: int, center: int, radius: int, scale: int, shift: int, offset: int, out_rows: int, bias: int,
    batch: int, functions: int, outer: int, channels: int, inner: int, slope: float, relaxation: int, workspace: int,
    stream: int, device: int
) -> None: ...
def crown_relu_bwd(
    dtype: int, grad_rows: int, grad_bias: int, kept: int, center: int, radius: int, scale: int, shift: int, offset:
    int, out_rows: int, out_center: int, out_radius: int, out_channels: int, batch: int, functions: int, outer: int,
    channels: int, inner: int, slope: float, relaxation: int, threads: int
) -> None: ...
def crown_relu_bwd_workspace(dtype: int, batch: int, outer: int, channels: int, inner: int) -> int: ...
def crown_relu_bwd_cuda(
    dtype: int, grad_rows: int, grad_bias: int, kept: int, center: int, radius: int, scale: int, shift: int, offset:
    int, out_rows: int, out_center: int, out_radius: int, out_channels: int, batch: int, functions: int, outer: int,
    channels: int, inner: int, slope: float, relaxation: int, workspace: int, stream: int, device: int
) -> None: ...
def crown_windows_lines(
    dtype: int, values: int, base: int, lower_slope: int, lower_offset: int, upper_slope: int, upper_offset: int,
    out_values: int, bias: int, batch: int, functions: int, window: _Triple, map: _Pair, stride: _Pair, start: _Pair,
    threads: int
) -> None: ...
def crown_windows_concretize(
    dtype: int, values: int, base: int, center: int, radius: int, out: int, batch: int, functions: int, window:
    _Triple, map: _Pair, stride: _Pair, start: _Pair, threads: int
) -> None: ...
def crown_windows_fold(
    dtype: int, columns: int, out: int, count: int, size: _Pair, kernel: _Pair, channels: int, map: _Pair, stride:
    _Pair, padding: _Pair, dilation: _Pair, threads: int
) -> None: ...
def interval_margin_fwd(
    dtype: int, radius: int, weight: int, labels: int, out: int, batch: int, features: int, classes: int, threads: int
) -> None: ...
def interval_margin_bwd(
    dtype: int, grad: int, radius: int, weight: int, labels: int, grad_radius: int, grad_weight: int, batch: int,
    features: int, classes: int, threads: int
) -> None: ...
def interval_margin_fwd_cuda(
    dtype: int, radius: int, weight: int, labels: int, out: int, batch: int, features: int, classes: int, stream: int,
    device: int
) -> None: ...
def interval_margin_bwd_workspace(dtype: int, batch: int, features: int, classes: int) -> int: ...
def interval_margin_bwd_cuda(
    dtype: int, grad: int, radius: int, weight: int, labels: int, grad_radius: int, grad_weight: int, batch: int,
    features: int, classes: int, workspace: int, stream: int, device: int
) -> None: ...
def norm_statistics(
    dtype: int, x: int, mean: int, var: int, outer: int, channels: int, inner: int, threads: int
) -> None: ...
def norm_statistics_workspace(dtype: int, outer: int, channels: int, inner: int) -> int: ...
def norm_statistics_cuda(
    dtype: int, x: int, mean: int, var: int, outer: int, channels: int, inner: int, workspace: int, stream: int,
    device: int
) -> None: ...
def interval_norm_relu_fwd(
    dtype: int, stack: int, radius: int, scale: int, shift: int, out_stack: int, out_radius: int, streams: int, outer:
    int, channels: int, inner: int, slope: float, threads: int
) -> None: ...
def interval_norm_relu_fwd_cuda(
    dtype: int, stack: int, radius: int, scale: int, shift: int, out_stack: int, out_radius: int, streams: int, outer:
    int, channels: int, inner: int, slope: float, stream: int, device: int
) -> None: ...
def interval_norm_relu_bwd_sums(
    dtype: int, grad_stack: int, grad_radius: int, stack: int, radius: int, scale: int, shift: int, sum_scale: int,
    sum_shift: int, streams: int, outer: int, channels: int, inner: int, slope: float, threads: int
) -> None: ...
def interval_norm_relu_bwd_sums_workspace(dtype: int, outer: int, channels: int, inner: int) -> int: ...
def interval_norm_relu_bwd_sums_cuda(
    dtype: int, grad_stack: int, grad_radius: int, stack: int, radius: int, scale: int, shift: int, sum_scale: int,
    sum_shift: int, streams: int, outer: int, channels: int, inner: int, slope: float, workspace: int, stream: int,
    device: int
) -> None: ...
def interval_norm_relu_bwd(
    dtype: int, grad_stack: int, grad_radius: int, stack: int, radius: int, scale: int, shift: int, nominal_mul: int,
    nominal_add: int, out_grad_stack: int, out_grad_radius: int, streams: int, outer: int, channels: int, inner: int,
    slope: float, threads: int
) -> None: ...
def interval_norm_relu_bwd_cuda(
    dtype: int, grad_stack: int, grad_radius: int, stack: int, radius: int, scale: int, shift: int, nominal_mul: int,
    nominal_add: int, out_grad_stack: int, out_grad_radius: int, streams: int, outer: int, channels: int, inner: int,
    slope: float, stream: int, device: int
) -> None: ...
def interval_norm_relu_moments_fwd(
    dtype: int, stack: int, radius: int, scale: int, shift: int, out_stack: int, out_radius: int, moments: int,
    streams: int, outer: int, channels: int, inner: int, slope: float, threads: int
) -> None: ...
def interval_norm_relu_moments_fwd_workspace(dtype: int, outer: int, channels: int, inner: int) -> int: ...
def interval_norm_relu_moments_fwd_cuda(
    dtype: int, stack: int, radius: int, scale: int, shift: int, out_stack: int, out_radius: int, moments: int,
    streams: int, outer: int, channels: int, inner: int, slope: float, workspace: int, stream: int, device: int
) -> None: ...
def interval_norm_relu_moments_bwd_sums(
    dtype: int, grad_stack: int, grad_radius: int, grad_moments: int, moments: int, stack: int, radius: int, scale:
    int, shift: int, sum_scale: int, sum_shift: int, streams: int, outer: int, channels: int, inner: int, slope:
    float, threads: int
) -> None: ...
def interval_norm_relu_moments_bwd_sums_workspace(dtype: int, outer: int, channels: int, inner: int) -> int: ...
def interval_norm_relu_moments_bwd_sums_cuda(
    dtype: int, grad_stack: int, grad_radius: int, grad_moments: int, moments: int, stack: int, radius: int, scale:
    int, shift: int, sum_scale: int, sum_shift: int, streams: int, outer: int, channels: int, inner: int, slope:
    float, workspace: int, stream: int, device: int
) -> None: ...
def interval_norm_relu_moments_bwd(
    dtype: int, grad_stack: int, grad_radius: int, grad_moments: int, moments: int, stack: int, radius: int, scale:
    int, shift: int, nominal_mul: int, nominal_add: int, out_grad_stack: int, out_grad_radius: int, streams: int,
    outer: int, channels: int, inner: int, slope: float, threads: int
) -> None: ...
def interval_norm_relu_moments_bwd_cuda(
    dtype: int, grad_stack: int, grad_radius: int, grad_moments: int, moments: int, stack: int, radius: int, scale:
    int, shift: int, nominal_mul: int, nominal_add: int, out_grad_stack: int, out_grad_radius: int, streams: int,
    outer: int, channels: int, inner: int, slope: float, stream: int, device: int
) -> None: ...
def signed_weight_grad(dtype: int, sum: int, grad: int, grad_abs: int, weight: int, n: int, threads: int) -> None: ...
def signed_weight_grad_cuda(
    dtype: int, sum: int, grad: int, grad_abs: int, weight: int, n: int, stream: int, device: int
) -> None: ...
def singleprop_norm_relu_fwd(
    dtype: int, nominal: int, radius: int, scale: int, shift: int, out_nominal: int, out_radius: int, outer: int,
    channels: int, inner: int, activation: int, threads: int
) -> None: ...
def singleprop_norm_relu_fwd_cuda(
    dtype: int, nominal: int, radius: int, scale: int, shift: int, out_nominal: int, out_radius: int, outer: int,
    channels: int, inner: int, activation: int, stream: int, device: int
) -> None: ...
def singleprop_norm_relu_bwd_sums(
    dtype: int, grad_nominal: int, grad_radius: int, nominal: int, radius: int, scale: int, shift: int, sum_scale:
    int, sum_shift: int, outer: int, channels: int, inner: int, activation: int, threads: int
) -> None: ...
def singleprop_norm_relu_bwd_sums_workspace(dtype: int, outer: int, channels: int, inner: int) -> int: ...
def singleprop_norm_relu_bwd_sums_cuda(
    dtype: int, grad_nominal: int, grad_radius: int, nominal: int, radius: int, scale: int, shift: int, sum_scale:
    int, sum_shift: int, outer: int, channels: int, inner: int, activation: int, workspace: int, stream: int, device:
    int
) -> None: ...
def singleprop_norm_relu_bwd(
    dtype: int, grad_nominal: int, grad_radius: int, nominal: int, radius: int, scale: int, shift: int, nominal_mul:
    int, nominal_add: int, out_grad_nominal: int, out_grad_radius: int, outer: int, channels: int, inner: int,
    activation: int, threads: int
) -> None: ...
def singleprop_norm_relu_bwd_cuda(
    dtype: int, grad_nominal: int, grad_radius: int, nominal: int, radius: int, scale: int, shift: int, nominal_mul:
    int, nominal_add: int, out_grad_nominal: int, out_grad_radius: int, outer: int, channels: int, inner: int,
    activation: int, stream: int, device: int
) -> None: ...
def swap_axes(dtype: int, x: int, out: int, outer: int, rows: int, columns: int, threads: int) -> None: ...
