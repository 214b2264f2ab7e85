#include "cuda/interval_margin.cuh"
#include "cuda/sums.cuh"
#include "interval_margin.h"

namespace fastbound {
namespace cuda {
namespace {

template <typename A>
__device__ A not_a_number() {
  return static_cast<A>(nanf(""));
}

__device__ bool valid(Index label, Index classes) { return label >= 0 && label < classes; }

// One warp per output.
template <typename S>
__global__ void __launch_bounds__(RowTiles::kThreads)
    interval_margin_fwd_kernel(const S* __restrict__ radius,      // [B, D]
                               const S* __restrict__ weight,      // [K, D]
                               const Index* __restrict__ labels,  // [B]
                               S* __restrict__ out,               // [B, K-1]
                               Index batch, Index features, Index classes) {
  using A = Compute<S>;
  const Index at = static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (at >= batch * (classes - 1)) return;
  const Index b = at / (classes - 1), i = at % (classes - 1), label = labels[b];
  const bool known = valid(label, classes);
  const Index other = i + (i >= label);
  A sum = known ? A(0) : not_a_number<A>();
  for (Index d = threadIdx.x % 32 * kPack<S>; known && d < features; d += 32 * kPack<S>) {
    const int count = static_cast<int>(features - d < kPack<S> ? features - d : kPack<S>);
    const Pack<S> mine = load(weight + label * features + d, count),
                  theirs = load(weight + other * features + d, count);
    const Pack<S> r = load(radius + b * features + d, count);
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) sum += margin_radius(mine[k], theirs[k], r[k]);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) out[at] = static_cast<S>(sum);
}

template <typename S>
struct ToRadius {
  using A = Compute<S>;

  const S *grad, *weight;
  const Index* labels;
  S* grad_radius;
  Index features, classes;

  __device__ Index load(Site site) const { return site.count > 0 ? labels[site.sample] : 0; }

  __device__ void apply(Site site, Index label) const {
    const Index d = site.at - site.sample * features;
    A sums[kPack<S>] = {};
    if (valid(label, classes)) {
      const Pack<S> mine = cuda::load(weight + label * features + d, site.count);
      for (Index i = 0; i < classes - 1; ++i) {
        const A g = static_cast<A>(grad[site.sample * (classes - 1) + i]);
        const Pack<S> theirs = cuda::load(weight + (i + (i >= label)) * features + d, site.count);
#pragma unroll
        for (int k = 0; k < kPack<S>; ++k) sums[k] += margin_radius(mine[k], theirs[k], g);
      }
    }
    Pack<S> result;
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) result.set(k, valid(label, classes) ? sums[k] : not_a_number<A>());
    store(grad_radius + site.at, result, site.count);
  }
};

template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads)
    interval_margin_bwd_radius_kernel(const S* __restrict__ grad,        // [B, K-1]
                                      const S* __restrict__ weight,      // [K, D]
                                      const Index* __restrict__ labels,  // [B]
                                      S* __restrict__ grad_radius,       // [B, D]
                                      Sweep sweep, Index classes) {
  const ToRadius<S> body{grad, weight, labels, grad_radius, sweep.sample_size(), classes};
  for_sites<1>(Walker(sweep, blockIdx.x, threadIdx.x), body);
}

// One thread per element of one part's sum over kMarginSamples samples.
template <typename S>
__global__ void __launch_bounds__(RowTiles::kThreads)
    interval_margin_bwd_weight_kernel(const S* __restrict__ grad,        // [B, K-1]
                                      const S* __restrict__ radius,      // [B, D]
                                      const S* __restrict__ weight,      // [K, D]
                                      const Index* __restrict__ labels,  // [B]
                                      double* __restrict__ partial,      // [parts, K, D]
                                      Index batch, Index features, Index classes, Index parts) {
  using A = Compute<S>;
  const Index at = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x, part = at / (classes * features);
  if (part >= parts) return;
  const Index k = at / features % classes, d = at % features;
  const Index begin = part * kMarginSamples, end = begin + kMarginSamples < batch ? begin + kMarginSamples : batch;
  const A own = static_cast<A>(weight[k * features + d]);
  A sum = 0;
  for (Index b = begin; b < end; ++b) {
    const Index label = labels[b];
    const A r = static_cast<A>(radius[b * features + d]);
    const S* g = grad + b * (classes - 1);
    if (!valid(label, classes)) {
      sum = not_a_number<A>();
    } else if (label == k) {
      for (Index i = 0; i < classes - 1; ++i)
        sum += margin_signed(own, static_cast<A>(weight[(i + (i >= k)) * features + d]), static_cast<A>(g[i]) * r);
    } else {
      const A mine = static_cast<A>(weight[label * features + d]);
      sum -= margin_signed(mine, own, static_cast<A>(g[k - (k > label)]) * r);
    }
  }
  partial[at] = static_cast<double>(sum);
}

template <typename S>
__global__ void __launch_bounds__(RowTiles::kThreads)
    interval_margin_weight_sum_kernel(const double* __restrict__ partial,  // [parts, K, D]
                                      S* __restrict__ grad_weight,         // [K, D]
                                      Index size, Index parts) {
  const Index at = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= size) return;
  double total = 0;
  for (Index part = 0; part < parts; ++part) total += partial[part * size + at];
  grad_weight[at] = static_cast<S>(static_cast<Compute<S>>(total));
}

}  // namespace

template <typename S>
void interval_margin_fwd_launch(const S* radius, const S* weight, const Index* labels, S* out, Index batch,
                                Index features, Index classes, cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  launch("interval_margin_fwd", interval_margin_fwd_kernel<S>, ceil_div(batch * (classes - 1), kWarps),
         RowTiles::kThreads, stream, radius, weight, labels, out, batch, features, classes);
}

template <typename S>
void interval_margin_bwd_launch(const S* grad, const S* radius, const S* weight, const Index* labels, S* grad_radius,
                                S* grad_weight, double* workspace, Index batch, Index features, Index classes,
                                cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  if (grad_radius != nullptr) {
    const Sweep sweep = make_sweep({batch, features, 1, 1}, kPack<S>, 1, kAnyBlocks);
    launch("interval_margin_bwd_radius", interval_margin_bwd_radius_kernel<S>, sweep.blocks(), sweep.threads, stream,
           grad, weight, labels, grad_radius, sweep, classes);
  }
  if (grad_weight != nullptr) {
    const Index parts = ceil_div(batch, kMarginSamples), size = classes * features;
    launch("interval_margin_bwd_weight", interval_margin_bwd_weight_kernel<S>,
           ceil_div(parts * size, RowTiles::kThreads), RowTiles::kThreads, stream, grad, radius, weight, labels,
           workspace, batch, features, classes, parts);
    launch("interval_margin_weight_sum", interval_margin_weight_sum_kernel<S>, ceil_div(size, RowTiles::kThreads),
           RowTiles::kThreads, stream, workspace, grad_weight, size, parts);
  }
}

#define FASTBOUND_INSTANTIATE(S)                                                                                      \
  template void interval_margin_fwd_launch(const S*, const S*, const Index*, S*, Index, Index, Index, cudaStream_t,   \
                                           int);                                                                      \
  template void interval_margin_bwd_launch(const S*, const S*, const S*, const Index*, S*, S*, double*, Index, Index, \
                                           Index, cudaStream_t, int);
FASTBOUND_FOR_EACH_STORAGE(FASTBOUND_INSTANTIATE)
#undef FASTBOUND_INSTANTIATE

}  // namespace cuda
}  // namespace fastbound
