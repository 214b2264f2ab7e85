#include "cuda/interval_margin.cuh"
#include "interval_margin.h"

namespace fastbound {
namespace cuda {
namespace {

template <typename T>
__device__ T not_a_number() {
  return static_cast<T>(nanf(""));
}

__device__ bool valid(Index label, Index classes) { return label >= 0 && label < classes; }

// A warp an output.
template <typename T>
__global__ void interval_margin_fwd_kernel(const T* __restrict__ radius,      // [B, D]
                                           const T* __restrict__ weight,      // [K, D]
                                           const Index* __restrict__ labels,  // [B]
                                           T* __restrict__ out,               // [B, K-1]
                                           Index batch, Index features, Index classes) {
  const int lane = threadIdx.x % 32;
  const Index step = static_cast<Index>(gridDim.x) * (blockDim.x / 32);
  for (Index o = static_cast<Index>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; o < batch * (classes - 1);
       o += step) {
    const Index b = o / (classes - 1), i = o % (classes - 1), label = labels[b];
    T sum = 0;
    if (valid(label, classes)) {
      const Index other = i + (i >= label);
      for (Index d = lane; d < features; d += 32)
        sum += margin_radius(weight[label * features + d], weight[other * features + d], radius[b * features + d]);
    } else {
      sum = not_a_number<T>();
    }
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xffffffffu, sum, offset);
    if (lane == 0) out[o] = sum;
  }
}

// A thread an element of grad_radius.
template <typename T>
__global__ void interval_margin_bwd_radius_kernel(const T* __restrict__ grad,        // [B, K-1]
                                                  const T* __restrict__ weight,      // [K, D]
                                                  const Index* __restrict__ labels,  // [B]
                                                  T* __restrict__ grad_radius,       // [B, D]
                                                  Index batch, Index features, Index classes) {
  const Index step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index e = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; e < batch * features; e += step) {
    const Index b = e / features, d = e % features, label = labels[b];
    T sum = valid(label, classes) ? T(0) : not_a_number<T>();
    if (valid(label, classes))
      for (Index i = 0; i < classes - 1; ++i)
        sum += margin_radius(weight[label * features + d], weight[(i + (i >= label)) * features + d],
                             grad[b * (classes - 1) + i]);
    grad_radius[e] = sum;
  }
}

// A thread an element of grad_weight: its sum runs over all samples in order, so the result is deterministic.
template <typename T>
__global__ void interval_margin_bwd_weight_kernel(const T* __restrict__ grad,        // [B, K-1]
                                                  const T* __restrict__ radius,      // [B, D]
                                                  const T* __restrict__ weight,      // [K, D]
                                                  const Index* __restrict__ labels,  // [B]
                                                  T* __restrict__ grad_weight,       // [K, D]
                                                  Index batch, Index features, Index classes) {
  const Index step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index e = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; e < classes * features; e += step) {
    const Index k = e / features, d = e % features;
    const T own = weight[e];
    T sum = 0;
    for (Index b = 0; b < batch; ++b) {
      const Index label = labels[b];
      const T r = radius[b * features + d];
      const T* g = grad + b * (classes - 1);
      if (!valid(label, classes)) {
        sum = not_a_number<T>();
      } else if (label == k) {
        for (Index i = 0; i < classes - 1; ++i)
          sum += margin_signed(own, weight[(i + (i >= k)) * features + d], g[i] * r);
      } else {
        sum -= margin_signed(weight[label * features + d], own, g[k - (k > label)] * r);
      }
    }
    grad_weight[e] = sum;
  }
}

}  // namespace

template <typename T>
void interval_margin_fwd_launch(const T* radius, const T* weight, const Index* labels, T* out, Index batch,
                                Index features, Index classes, cudaStream_t stream, int device) {
  const Index outputs = batch * (classes - 1);
  if (outputs == 0) return;
  const DeviceGuard guard(device);
  interval_margin_fwd_kernel<<<blocks_for(outputs * 32), 256, 0, stream>>>(radius, weight, labels, out, batch, features,
                                                                           classes);
  check(cudaGetLastError(), "interval_margin_fwd");
}

template <typename T>
void interval_margin_bwd_launch(const T* grad, const T* radius, const T* weight, const Index* labels, T* grad_radius,
                                T* grad_weight, Index batch, Index features, Index classes, cudaStream_t stream,
                                int device) {
  const DeviceGuard guard(device);
  if (grad_radius != nullptr && batch > 0)
    interval_margin_bwd_radius_kernel<<<blocks_for(batch * features), 256, 0, stream>>>(
        grad, weight, labels, grad_radius, batch, features, classes);
  if (grad_weight != nullptr)
    interval_margin_bwd_weight_kernel<<<blocks_for(classes * features), 256, 0, stream>>>(
        grad, radius, weight, labels, grad_weight, batch, features, classes);
  check(cudaGetLastError(), "interval_margin_bwd");
}

#define FASTBOUND_INSTANTIATE(T)                                                                                    \
  template void interval_margin_fwd_launch(const T*, const T*, const Index*, T*, Index, Index, Index, cudaStream_t, \
                                           int);                                                                    \
  template void interval_margin_bwd_launch(const T*, const T*, const T*, const Index*, T*, T*, Index, Index, Index, \
                                           cudaStream_t, int);
FASTBOUND_INSTANTIATE(float)
FASTBOUND_INSTANTIATE(double)
#undef FASTBOUND_INSTANTIATE

}  // namespace cuda
}  // namespace fastbound
