#include "cuda/interval_norm_relu.cuh"
#include "cuda/sums.cuh"
#include "interval_norm_relu.h"

namespace fastbound {
namespace cuda {
namespace {

// The maps of both streams in a stack: the nominal one is null where there is none.
template <typename S>
struct Streams {
  S *nominal, *center;

  __device__ Streams(S* stack, int streams, Index size)
      : nominal(streams == 2 ? stack : nullptr), center(stack + (streams - 1) * size) {}
};

template <typename S>
struct Statistics {
  using A = Compute<S>;

  const S* x;
  double first[kPack<S>];
  Sums<2, kPack<S>> sums;

  __device__ Statistics(const S* values, const Sweep& sweep, const Walker& walker) : x(values) {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k)
      first[k] = static_cast<double>(static_cast<A>(x[walker.channel(k) * sweep.shape.inner]));
  }

  __device__ Pack<S> load(Site site) const { return cuda::load(x + site.at, site.count); }

  __device__ void apply(Site site, const Pack<S>& pack) {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k)
      if (k < site.count) add_about(first[k], static_cast<double>(pack[k]), sums.values[0][k], sums.values[1][k]);
  }
};

template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads)
    norm_statistics_kernel(const S* __restrict__ x,       // [outer, C, inner]
                           double* __restrict__ partial,  // [parts, 2, period]
                           Sweep sweep) {
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  Statistics<S> body(x, sweep, walker);
  for_sites<4>(walker, body);
  body.sums.leave(sweep, blockIdx.x, partial);
}

template <typename S>
__global__ void norm_statistics_end_kernel(const double* __restrict__ partial,  // [parts, 2, period]
                                           const S* __restrict__ x,             // [outer, C, inner]
                                           Compute<S>* __restrict__ mean,       // [C]
                                           Compute<S>* __restrict__ var,        // [C]
                                           Index parts, Index period, Index channels, Index inner, double count) {
  const Index channel = static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (channel >= channels) return;
  const double sum = channel_total<2>(partial, parts, period, channels, channel, 0);
  const double square = channel_total<2>(partial, parts, period, channels, channel, 1);
  if (threadIdx.x % 32 != 0) return;
  double exact_mean, exact_var;
  statistics_of(sum, square, count, static_cast<double>(static_cast<Compute<S>>(x[channel * inner])), exact_mean,
                exact_var);
  mean[channel] = static_cast<Compute<S>>(exact_mean);
  var[channel] = static_cast<Compute<S>>(exact_var);
}

template <typename S>
struct Forward {
  using A = Compute<S>;
  struct Loaded {
    Pack<S> nominal, center, radius;
  };

  Streams<const S> in;
  const S* radius;
  PerChannel<kPack<S>, A> scale, shift;
  Streams<S> out;
  S* out_radius;
  A slope;

  __device__ Loaded load(Site site) const {
    return {load_or_zero(in.nominal, site.at, site.count), cuda::load(in.center + site.at, site.count),
            cuda::load(radius + site.at, site.count)};
  }

  __device__ void apply(Site site, Loaded& x) const {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      A center = scale[k] * x.center[k] + shift[k], spread = absolute(scale[k]) * x.radius[k];
      interval_relu(center, spread, slope);
      x.center.set(k, center);
      x.radius.set(k, spread);
      x.nominal.set(k, leaky_relu(scale[k] * x.nominal[k] + shift[k], slope));
    }
    store(out.center + site.at, x.center, site.count);
    store(out_radius + site.at, x.radius, site.count);
    if (out.nominal != nullptr) store(out.nominal + site.at, x.nominal, site.count);
  }
};

template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads)
    interval_norm_relu_fwd_kernel(const S* __restrict__ stack,           // [N, outer, C, inner]
                                  const S* __restrict__ radius,          // [outer, C, inner]
                                  const Compute<S>* __restrict__ scale,  // [C] or null
                                  const Compute<S>* __restrict__ shift,  // [C] or null
                                  S* __restrict__ out_stack,             // [N, outer, C, inner]
                                  S* __restrict__ out_radius,            // [outer, C, inner]
                                  int streams, Index size, Sweep sweep, Compute<S> slope) {
  using A = Compute<S>;
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  const Forward<S> body{{stack, streams, size},
                        radius,
                        {scale, A(1), walker},
                        {shift, A(0), walker},
                        {out_stack, streams, size},
                        out_radius,
                        slope};
  for_sites<2>(walker, body);
}

// What both passes of the backward read.
template <typename S>
struct Gradients {
  struct Loaded {
    Pack<S> grad_nominal, grad_center, grad_radius, nominal, center, radius;
  };

  Streams<const S> grad;
  const S* grad_radius;
  Streams<const S> in;
  const S* radius;

  __device__ Loaded load(Site site) const {
    return {load_or_zero(grad.nominal, site.at, site.count), cuda::load(grad.center + site.at, site.count),
            load_or_zero(grad_radius, site.at, site.count),  load_or_zero(in.nominal, site.at, site.count),
            cuda::load(in.center + site.at, site.count),     cuda::load(radius + site.at, site.count)};
  }
};

template <typename S>
struct BackwardSums {
  using A = Compute<S>;
  using Loaded = typename Gradients<S>::Loaded;

  Gradients<S> maps;
  PerChannel<kPack<S>, A> scale, shift;
  A slope;
  Sums<2, kPack<S>> sums;

  __device__ Loaded load(Site site) const { return maps.load(site); }

  // An element that is missing was read as zeros, and so was its gradient: it adds zeros.
  __device__ void apply(Site, const Loaded& x) {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      A to_scale, to_shift;
      affine_grad(x.grad_center[k], x.grad_radius[k], x.center[k], x.radius[k], scale[k], absolute(scale[k]),
                  sign(scale[k]), shift[k], slope, NoMore(), to_scale, to_shift);
      add_nominal_grad(x.grad_nominal[k], x.nominal[k], scale[k], shift[k], slope, to_scale, to_shift);
      sums.add(0, k, to_scale);
      sums.add(1, k, to_shift);
    }
  }
};

// Three blocks to a multiprocessor: for the four that ptxas aims at by itself, half precision spills on sm_80.
template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads, 3)
    interval_norm_relu_bwd_sums_kernel(const S* __restrict__ grad_stack,      // [N, outer, C, inner]
                                       const S* __restrict__ grad_radius,     // [outer, C, inner] or null
                                       const S* __restrict__ stack,           // [N, outer, C, inner]
                                       const S* __restrict__ radius,          // [outer, C, inner]
                                       const Compute<S>* __restrict__ scale,  // [C]
                                       const Compute<S>* __restrict__ shift,  // [C]
                                       double* __restrict__ partial,          // [parts, 2, period]
                                       int streams, Index size, Sweep sweep, Compute<S> slope) {
  using A = Compute<S>;
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  BackwardSums<S> body{{{grad_stack, streams, size}, grad_radius, {stack, streams, size}, radius},
                       {scale, A(1), walker},
                       {shift, A(0), walker},
                       slope,
                       {}};
  for_sites<1>(walker, body);
  body.sums.leave(sweep, blockIdx.x, partial);
}

template <typename A>
__global__ void interval_norm_relu_sums_end_kernel(const double* __restrict__ partial,  // [parts, 2, period]
                                                   A* __restrict__ sum_scale,           // [C]
                                                   A* __restrict__ sum_shift,           // [C]
                                                   Index parts, Index period, Index channels) {
  const Index channel = static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (channel >= channels) return;
  const double scale = channel_total<2>(partial, parts, period, channels, channel, 0);
  const double shift = channel_total<2>(partial, parts, period, channels, channel, 1);
  if (threadIdx.x % 32 != 0) return;
  sum_scale[channel] = static_cast<A>(scale);
  sum_shift[channel] = static_cast<A>(shift);
}

template <typename S>
struct Backward {
  using A = Compute<S>;
  using Loaded = typename Gradients<S>::Loaded;

  Gradients<S> maps;
  PerChannel<kPack<S>, A> scale, shift, mul, add;
  Streams<S> out;
  S* out_radius;
  bool statistics;  // whether the gradient passes through them
  A slope;

  __device__ Loaded load(Site site) const { return maps.load(site); }

  __device__ void apply(Site site, Loaded& x) const {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      A center = x.grad_center[k], spread = x.grad_radius[k];
      interval_relu_grad(center, spread, scale[k] * x.center[k] + shift[k], absolute(scale[k]) * x.radius[k], slope);
      const A gated = scale[k] * leaky_relu_grad(x.grad_nominal[k], scale[k] * x.nominal[k] + shift[k], slope);
      x.center.set(k, scale[k] * center);
      x.radius.set(k, absolute(scale[k]) * spread);
      x.nominal.set(k, statistics ? gated + (mul[k] * x.nominal[k] + add[k]) : gated);
    }
    store(out.center + site.at, x.center, site.count);
    store(out_radius + site.at, x.radius, site.count);
    if (out.nominal != nullptr) store(out.nominal + site.at, x.nominal, site.count);
  }
};

template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads)
    interval_norm_relu_bwd_kernel(const S* __restrict__ grad_stack,            // [N, outer, C, inner]
                                  const S* __restrict__ grad_radius,           // [outer, C, inner] or null
                                  const S* __restrict__ stack,                 // [N, outer, C, inner]
                                  const S* __restrict__ radius,                // [outer, C, inner]
                                  const Compute<S>* __restrict__ scale,        // [C] or null
                                  const Compute<S>* __restrict__ shift,        // [C] or null
                                  const Compute<S>* __restrict__ nominal_mul,  // [C] or null
                                  const Compute<S>* __restrict__ nominal_add,  // [C] or null
                                  S* __restrict__ out_grad_stack,              // [N, outer, C, inner]
                                  S* __restrict__ out_grad_radius,             // [outer, C, inner]
                                  int streams, Index size, Sweep sweep, Compute<S> slope) {
  using A = Compute<S>;
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  const Backward<S> body{{{grad_stack, streams, size}, grad_radius, {stack, streams, size}, radius},
                         {scale, A(1), walker},
                         {shift, A(0), walker},
                         {nominal_mul, A(0), walker},
                         {nominal_add, A(0), walker},
                         {out_grad_stack, streams, size},
                         out_grad_radius,
                         nominal_mul != nullptr,
                         slope};
  for_sites<1>(walker, body);
}

// The sweep of an element-wise pass; without numbers of channels, all elements belong to one.
Sweep elementwise(bool channels_matter, Index outer, Index channels, Index inner, int pack) {
  const MapShape shape =
      channels_matter ? map_shape(outer, channels, inner) : map_shape(outer * channels * inner, 1, 1);
  return make_sweep(shape, pack, 4, kAnyBlocks);
}

}  // namespace

template <typename S>
void norm_statistics_launch(const S* x, Compute<S>* mean, Compute<S>* var, double* workspace, Index outer,
                            Index channels, Index inner, cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  const Sweep sweep = channel_sums_sweep(outer, channels, inner, kPack<S>);
  launch("norm_statistics", norm_statistics_kernel<S>, sweep.blocks(), sweep.threads, stream, x, workspace, sweep);
  launch("norm_statistics_end", norm_statistics_end_kernel<S>, ceil_div(channels, kWarps), RowTiles::kThreads, stream,
         workspace, x, mean, var, sweep.parts, sweep.period, channels, inner,
         static_cast<double>(outer) * static_cast<double>(inner));
}

template <typename S>
void interval_norm_relu_fwd_launch(const S* stack, const S* radius, const Compute<S>* scale, const Compute<S>* shift,
                                   S* out_stack, S* out_radius, int streams, Index outer, Index channels, Index inner,
                                   Compute<S> slope, cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  const Sweep sweep = elementwise(scale != nullptr, outer, channels, inner, kPack<S>);
  launch("interval_norm_relu_fwd", interval_norm_relu_fwd_kernel<S>, sweep.blocks(), sweep.threads, stream, stack,
         radius, scale, shift, out_stack, out_radius, streams, outer * channels * inner, sweep, slope);
}

template <typename S>
void interval_norm_relu_bwd_sums_launch(const S* grad_stack, const S* grad_radius, const S* stack, const S* radius,
                                        const Compute<S>* scale, const Compute<S>* shift, Compute<S>* sum_scale,
                                        Compute<S>* sum_shift, double* workspace, int streams, Index outer,
                                        Index channels, Index inner, Compute<S> slope, cudaStream_t stream,
                                        int device) {
  const DeviceGuard guard(device);
  const Sweep sweep = channel_sums_sweep(outer, channels, inner, kPack<S>);
  launch("interval_norm_relu_bwd_sums", interval_norm_relu_bwd_sums_kernel<S>, sweep.blocks(), sweep.threads, stream,
         grad_stack, grad_radius, stack, radius, scale, shift, workspace, streams, outer * channels * inner, sweep,
         slope);
  launch("interval_norm_relu_sums_end", interval_norm_relu_sums_end_kernel<Compute<S>>, ceil_div(channels, kWarps),
         RowTiles::kThreads, stream, workspace, sum_scale, sum_shift, sweep.parts, sweep.period, channels);
}

template <typename S>
void interval_norm_relu_bwd_launch(const S* grad_stack, const S* grad_radius, const S* stack, const S* radius,
                                   const Compute<S>* scale, const Compute<S>* shift, const Compute<S>* nominal_mul,
                                   const Compute<S>* nominal_add, S* out_grad_stack, S* out_grad_radius, int streams,
                                   Index outer, Index channels, Index inner, Compute<S> slope, cudaStream_t stream,
                                   int device) {
  const DeviceGuard guard(device);
  const Sweep sweep = elementwise(scale != nullptr, outer, channels, inner, kPack<S>);
  launch("interval_norm_relu_bwd", interval_norm_relu_bwd_kernel<S>, sweep.blocks(), sweep.threads, stream, grad_stack,
         grad_radius, stack, radius, scale, shift, nominal_mul, nominal_add, out_grad_stack, out_grad_radius, streams,
         outer * channels * inner, sweep, slope);
}

#define FASTBOUND_INSTANTIATE(S)                                                                                       \
  template void norm_statistics_launch(const S*, Compute<S>*, Compute<S>*, double*, Index, Index, Index, cudaStream_t, \
                                       int);                                                                           \
  template void interval_norm_relu_fwd_launch(const S*, const S*, const Compute<S>*, const Compute<S>*, S*, S*, int,   \
                                              Index, Index, Index, Compute<S>, cudaStream_t, int);                     \
  template void interval_norm_relu_bwd_sums_launch(const S*, const S*, const S*, const S*, const Compute<S>*,          \
                                                   const Compute<S>*, Compute<S>*, Compute<S>*, double*, int, Index,   \
                                                   Index, Index, Compute<S>, cudaStream_t, int);                       \
  template void interval_norm_relu_bwd_launch(const S*, const S*, const S*, const S*, const Compute<S>*,               \
                                              const Compute<S>*, const Compute<S>*, const Compute<S>*, S*, S*, int,    \
                                              Index, Index, Index, Compute<S>, cudaStream_t, int);
FASTBOUND_FOR_EACH_STORAGE(FASTBOUND_INSTANTIATE)
#undef FASTBOUND_INSTANTIATE

}  // namespace cuda
}  // namespace fastbound
