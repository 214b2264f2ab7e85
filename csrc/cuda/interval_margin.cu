#include "cuda/sums.cuh"
#include "interval_margin.h"

namespace fastbound::cuda {
namespace {

template <typename A>
__device__ A not_a_number() {
  return static_cast<A>(nanf(""));
}

// One warp per output.
template <typename S>
__global__ void __launch_bounds__(RowTiles::kThreads)
    interval_margin_fwd_kernel(const __grid_constant__ IntervalMarginFwd<S> pass) {
  using A = Compute<S>;
  const Index features = pass.features, classes = pass.classes;
  const Index at = static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (at >= pass.batch * (classes - 1)) return;
  const Index b = at / (classes - 1), i = at % (classes - 1), label = pass.labels[b];
  const bool known = valid(label, classes);
  const Index other = i + (i >= label);
  A sum = known ? A(0) : not_a_number<A>();
  for (Index d = threadIdx.x % 32 * kPack<S>; known && d < features; d += 32 * kPack<S>) {
    const int count = static_cast<int>(features - d < kPack<S> ? features - d : kPack<S>);
    const Pack<S> mine = load(pass.weight + label * features + d, count),
                  theirs = load(pass.weight + other * features + d, count);
    const Pack<S> r = load(pass.radius + b * features + d, count);
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) sum += margin_radius(mine[k], theirs[k], r[k]);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) pass.out[at] = static_cast<S>(sum);
}

template <typename S>
struct ToRadius {
  using A = Compute<S>;

  const IntervalMarginBwd<S>& pass;

  __device__ Index load(Site site) const { return site.count > 0 ? pass.labels[site.sample] : 0; }

  __device__ void apply(Site site, Index label) const {
    const Index features = pass.features, classes = pass.classes;
    const Index d = site.at - site.sample * features;
    A sums[kPack<S>] = {};
    if (valid(label, classes)) {
      const Pack<S> mine = cuda::load(pass.weight + label * features + d, site.count);
      for (Index i = 0; i < classes - 1; ++i) {
        const A g = static_cast<A>(pass.grad[site.sample * (classes - 1) + i]);
        const Pack<S> theirs = cuda::load(pass.weight + (i + (i >= label)) * features + d, site.count);
#pragma unroll
        for (int k = 0; k < kPack<S>; ++k) sums[k] += margin_radius(mine[k], theirs[k], g);
      }
    }
    Pack<S> result;
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) result.set(k, valid(label, classes) ? sums[k] : not_a_number<A>());
    store(pass.grad_radius + site.at, result, site.count);
  }
};

template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads)
    interval_margin_bwd_radius_kernel(const __grid_constant__ IntervalMarginBwd<S> pass,
                                      const __grid_constant__ Sweep sweep) {
  const ToRadius<S> body{pass};
  for_sites<1>(Walker(sweep, blockIdx.x, threadIdx.x), body);
}

// One thread per element of one part's sum over kSamples samples.
template <typename S>
__global__ void __launch_bounds__(RowTiles::kThreads)
    interval_margin_bwd_weight_kernel(const __grid_constant__ IntervalMarginBwd<S> pass,
                                      double* __restrict__ partial) {  // [parts, K, D]
  using A = Compute<S>;
  constexpr Index kSamples = IntervalMarginBwd<S>::kSamples;
  const Index batch = pass.batch, features = pass.features, classes = pass.classes;
  const S* __restrict__ weight = pass.weight;
  const Index at = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x, part = at / (classes * features);
  if (part >= pass.parts()) return;
  const Index k = at / features % classes, d = at % features;
  const Index begin = part * kSamples, end = begin + kSamples < batch ? begin + kSamples : batch;
  const A own = static_cast<A>(weight[k * features + d]);
  A sum = 0;
  for (Index b = begin; b < end; ++b) {
    const Index label = pass.labels[b];
    const A r = static_cast<A>(pass.radius[b * features + d]);
    const S* g = pass.grad + b * (classes - 1);
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

template <typename S>
void execute(const IntervalMarginFwd<S>& pass, double*, cudaStream_t stream) {
  launch(pass.kName, interval_margin_fwd_kernel<S>, ceil_div(pass.batch * (pass.classes - 1), kWarps),
         RowTiles::kThreads, stream, pass);
}

template <typename S>
void execute(const IntervalMarginBwd<S>& pass, double* workspace, cudaStream_t stream) {
  if (pass.grad_radius != nullptr) {
    const Sweep sweep = make_sweep({pass.batch, pass.features, 1, 1}, kPack<S>, 1, kAnyBlocks);
    launch("interval_margin_bwd_radius", interval_margin_bwd_radius_kernel<S>, sweep.blocks(), sweep.threads, stream,
           pass, sweep);
  }
  if (pass.grad_weight != nullptr) {
    const Index parts = pass.parts(), size = pass.classes * pass.features;
    launch("interval_margin_bwd_weight", interval_margin_bwd_weight_kernel<S>,
           ceil_div(parts * size, RowTiles::kThreads), RowTiles::kThreads, stream, pass, workspace);
    launch("interval_margin_weight_sum", interval_margin_weight_sum_kernel<S>, ceil_div(size, RowTiles::kThreads),
           RowTiles::kThreads, stream, workspace, pass.grad_weight, size, parts);
  }
}

}  // namespace

FASTBOUND_LAUNCHES(IntervalMarginFwd)
FASTBOUND_LAUNCHES(IntervalMarginBwd)

}  // namespace fastbound::cuda
