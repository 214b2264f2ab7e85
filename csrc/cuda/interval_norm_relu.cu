#include "cuda/interval_norm_relu.cuh"
#include "interval_norm_relu.h"

namespace fastbound {
namespace cuda {
namespace {

template <typename T>
__global__ void interval_norm_relu_fwd_kernel(const T* __restrict__ stack,   // [N, outer, C, inner]
                                              const T* __restrict__ radius,  // [outer, C, inner]
                                              const T* __restrict__ scale,   // [C] or null
                                              const T* __restrict__ shift,   // [C] or null
                                              T* __restrict__ out_stack,     // [N, outer, C, inner]
                                              T* __restrict__ out_radius,    // [outer, C, inner]
                                              int streams, Index size, Index channels, Index inner, T slope) {
  const Index last = (streams - 1) * size;
  const Index step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < size; i += step) {
    const Index channel = i / inner % channels;
    const T s = scale != nullptr ? scale[channel] : T(1);
    const T b = scale != nullptr ? shift[channel] : T(0);
    T center = s * stack[last + i] + b;
    T spread = absolute(s) * radius[i];
    interval_relu(center, spread, slope);
    out_stack[last + i] = center;
    out_radius[i] = spread;
    if (streams == 2) out_stack[i] = leaky_relu(s * stack[i] + b, slope);
  }
}

template <typename T>
__global__ void interval_norm_relu_bwd_kernel(const T* __restrict__ grad_stack,   // [N, outer, C, inner]
                                              const T* __restrict__ grad_radius,  // [outer, C, inner] or null
                                              const T* __restrict__ stack,        // [N, outer, C, inner]
                                              const T* __restrict__ radius,       // [outer, C, inner]
                                              const T* __restrict__ scale,        // [C] or null
                                              const T* __restrict__ shift,        // [C] or null
                                              const T* __restrict__ nominal_mul,  // [C] or null
                                              const T* __restrict__ nominal_add,  // [C] or null
                                              T* __restrict__ out_grad_stack,     // [N, outer, C, inner]
                                              T* __restrict__ out_grad_radius,    // [outer, C, inner]
                                              int streams, Index size, Index channels, Index inner, T slope) {
  const Index last = (streams - 1) * size;
  const Index step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < size; i += step) {
    const Index channel = i / inner % channels;
    const T s = scale != nullptr ? scale[channel] : T(1);
    const T b = scale != nullptr ? shift[channel] : T(0);
    T center_grad = grad_stack[last + i];
    T radius_grad = grad_radius != nullptr ? grad_radius[i] : T(0);
    interval_relu_grad(center_grad, radius_grad, s * stack[last + i] + b, absolute(s) * radius[i], slope);
    out_grad_stack[last + i] = s * center_grad;
    out_grad_radius[i] = absolute(s) * radius_grad;
    if (streams == 2) {
      T grad = s * leaky_relu_grad(grad_stack[i], s * stack[i] + b, slope);
      if (nominal_mul != nullptr) grad = grad + (nominal_mul[channel] * stack[i] + nominal_add[channel]);
      out_grad_stack[i] = grad;
    }
  }
}

// Two sums per channel in double, in an order that depends on the shape alone. A block owns `width` neighbouring
// channels: 32 where channels are innermost, so that a warp reads 32 neighbours, and one where they are not. terms(i,
// channel, one, two) are the two terms of element i; the sums come out in the threads of the first row.
constexpr int kRows = 32;
constexpr int kColumns = 32;

template <typename Terms>
__device__ bool two_sums(Index outer, Index channels, Index inner, Terms terms, Index& channel, double& one,
                         double& two) {
  __shared__ double ones[kRows][kColumns + 1], twos[kRows][kColumns + 1];
  one = two = 0;
  const int column = threadIdx.x, row = threadIdx.y;
  if (inner == 1) {
    channel = static_cast<Index>(blockIdx.x) * kColumns + column;
    if (channel < channels)
      for (Index o = row; o < outer; o += kRows) terms(o * channels + channel, channel, one, two);
  } else {
    channel = blockIdx.x;
    for (Index o = 0; o < outer; ++o)
      for (Index p = row * kColumns + column; p < inner; p += kRows * kColumns)
        terms((o * channels + channel) * inner + p, channel, one, two);
  }
  ones[row][column] = one;
  twos[row][column] = two;
  __syncthreads();
  if (row != 0) return false;
  one = two = 0;
  for (int r = 0; r < kRows; ++r) {
    one += ones[r][column];
    two += twos[r][column];
  }
  if (inner == 1) return channel < channels;
  for (int offset = 16; offset > 0; offset /= 2) {  // row 0 is one whole warp
    one += __shfl_down_sync(0xffffffffu, one, offset);
    two += __shfl_down_sync(0xffffffffu, two, offset);
  }
  return column == 0;
}

template <typename T>
__global__ void norm_statistics_kernel(const T* __restrict__ x,                    // [outer, C, inner]
                                       T* __restrict__ mean, T* __restrict__ var,  // [C]
                                       Index outer, Index channels, Index inner) {
  Index channel;
  double sum, square;
  // Shifted by the channel's first element, as on the CPU.
  const auto terms = [=](Index i, Index c, double& one, double& two) {
    const double d = static_cast<double>(x[i]) - static_cast<double>(x[c * inner]);
    one += d;
    two += d * d;
  };
  if (!two_sums(outer, channels, inner, terms, channel, sum, square)) return;
  const double count = static_cast<double>(outer) * static_cast<double>(inner);
  const double offset = sum / count, spread = square / count - offset * offset;
  mean[channel] = static_cast<T>(static_cast<double>(x[channel * inner]) + offset);
  var[channel] = static_cast<T>(spread > 0 || spread != spread ? spread : 0.0);
}

template <typename T>
__global__ void interval_norm_relu_bwd_sums_kernel(const T* __restrict__ grad_stack,   // [N, outer, C, inner]
                                                   const T* __restrict__ grad_radius,  // [outer, C, inner] or null
                                                   const T* __restrict__ stack,        // [N, outer, C, inner]
                                                   const T* __restrict__ radius,       // [outer, C, inner]
                                                   const T* __restrict__ scale,        // [C]
                                                   const T* __restrict__ shift,        // [C]
                                                   T* __restrict__ sum_scale,          // [C]
                                                   T* __restrict__ sum_shift,          // [C]
                                                   int streams, Index outer, Index channels, Index inner, T slope) {
  const Index last = (streams - 1) * outer * channels * inner;
  const auto terms = [=](Index i, Index c, double& one, double& two) {
    const T s = scale[c], b = shift[c];
    T center_grad = grad_stack[last + i];
    T radius_grad = grad_radius != nullptr ? grad_radius[i] : T(0);
    interval_relu_grad(center_grad, radius_grad, s * stack[last + i] + b, absolute(s) * radius[i], slope);
    T to_scale = center_grad * stack[last + i] + sign(s) * radius_grad * radius[i];
    T to_shift = center_grad;
    if (streams == 2) {
      const T grad = leaky_relu_grad(grad_stack[i], s * stack[i] + b, slope);
      to_scale += grad * stack[i];
      to_shift += grad;
    }
    one += static_cast<double>(to_scale);
    two += static_cast<double>(to_shift);
  };
  Index channel;
  double scale_sum, shift_sum;
  if (!two_sums(outer, channels, inner, terms, channel, scale_sum, shift_sum)) return;
  sum_scale[channel] = static_cast<T>(scale_sum);
  sum_shift[channel] = static_cast<T>(shift_sum);
}

unsigned reduction_blocks(Index channels, Index inner) {
  return static_cast<unsigned>(inner == 1 ? (channels + kColumns - 1) / kColumns : channels);
}

}  // namespace

template <typename T>
void norm_statistics_launch(const T* x, T* mean, T* var, Index outer, Index channels, Index inner, cudaStream_t stream,
                            int device) {
  const DeviceGuard guard(device);
  norm_statistics_kernel<<<reduction_blocks(channels, inner), dim3(kColumns, kRows), 0, stream>>>(x, mean, var, outer,
                                                                                                  channels, inner);
  check(cudaGetLastError(), "norm_statistics");
}

template <typename T>
void interval_norm_relu_fwd_launch(const T* stack, const T* radius, const T* scale, const T* shift, T* out_stack,
                                   T* out_radius, int streams, Index outer, Index channels, Index inner, T slope,
                                   cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  const Index size = outer * channels * inner;
  interval_norm_relu_fwd_kernel<<<blocks_for(size), 256, 0, stream>>>(
      stack, radius, scale, shift, out_stack, out_radius, streams, size, channels, inner, slope);
  check(cudaGetLastError(), "interval_norm_relu_fwd");
}

template <typename T>
void interval_norm_relu_bwd_sums_launch(const T* grad_stack, const T* grad_radius, const T* stack, const T* radius,
                                        const T* scale, const T* shift, T* sum_scale, T* sum_shift, int streams,
                                        Index outer, Index channels, Index inner, T slope, cudaStream_t stream,
                                        int device) {
  const DeviceGuard guard(device);
  interval_norm_relu_bwd_sums_kernel<<<reduction_blocks(channels, inner), dim3(kColumns, kRows), 0, stream>>>(
      grad_stack, grad_radius, stack, radius, scale, shift, sum_scale, sum_shift, streams, outer, channels, inner,
      slope);
  check(cudaGetLastError(), "interval_norm_relu_bwd_sums");
}

template <typename T>
void interval_norm_relu_bwd_launch(const T* grad_stack, const T* grad_radius, const T* stack, const T* radius,
                                   const T* scale, const T* shift, const T* nominal_mul, const T* nominal_add,
                                   T* out_grad_stack, T* out_grad_radius, int streams, Index outer, Index channels,
                                   Index inner, T slope, cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  const Index size = outer * channels * inner;
  interval_norm_relu_bwd_kernel<<<blocks_for(size), 256, 0, stream>>>(
      grad_stack, grad_radius, stack, radius, scale, shift, nominal_mul, nominal_add, out_grad_stack, out_grad_radius,
      streams, size, channels, inner, slope);
  check(cudaGetLastError(), "interval_norm_relu_bwd");
}

#define FASTBOUND_INSTANTIATE(T)                                                                                       \
  template void norm_statistics_launch(const T*, T*, T*, Index, Index, Index, cudaStream_t, int);                      \
  template void interval_norm_relu_fwd_launch(const T*, const T*, const T*, const T*, T*, T*, int, Index, Index,       \
                                              Index, T, cudaStream_t, int);                                            \
  template void interval_norm_relu_bwd_sums_launch(const T*, const T*, const T*, const T*, const T*, const T*, T*, T*, \
                                                   int, Index, Index, Index, T, cudaStream_t, int);                    \
  template void interval_norm_relu_bwd_launch(const T*, const T*, const T*, const T*, const T*, const T*, const T*,    \
                                              const T*, T*, T*, int, Index, Index, Index, T, cudaStream_t, int);
FASTBOUND_INSTANTIATE(float)
FASTBOUND_INSTANTIATE(double)
#undef FASTBOUND_INSTANTIATE

}  // namespace cuda
}  // namespace fastbound
