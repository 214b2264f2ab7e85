// The passes of interval_norm_relu over all streams, for every operator that consists of them.
#pragma once

#include "cuda/channel_maps.cuh"
#include "cuda/launch.cuh"
#include "cuda/sums.cuh"
#include "interval_norm_relu.h"

namespace fastbound {
namespace cuda {
namespace {

// The maps of both streams in a stack; the nominal one is null if there is none.
template <typename S>
struct Streams {
  S *nominal, *center;

  __device__ Streams(S* stack, int streams, Index size)
      : nominal(streams == 2 ? stack : nullptr), center(stack + (streams - 1) * size) {}
};

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

// `terms()`, called once per thread, gives what a backward pass adds to the gradients after the ReLU: here nothing.
struct NoTerms {
  __device__ NoMore operator()() const { return {}; }
};

// The inputs of both backward passes.
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

template <typename S, typename More>
struct BackwardSums {
  using A = Compute<S>;
  using Loaded = typename Gradients<S>::Loaded;

  Gradients<S> maps;
  PerChannel<kPack<S>, A> scale, shift;
  A slope;
  More more;
  Sums<2, kPack<S>> sums;

  __device__ Loaded load(Site site) const { return maps.load(site); }

  __device__ void apply(Site site, const Loaded& x) {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      A to_scale, to_shift;
      affine_grad(x.grad_center[k], x.grad_radius[k], x.center[k], x.radius[k], scale[k], absolute(scale[k]),
                  sign(scale[k]), shift[k], slope, more, to_scale, to_shift);
      add_nominal_grad(x.grad_nominal[k], x.nominal[k], scale[k], shift[k], slope, to_scale, to_shift);
      sums.add(0, k, to_scale);
      sums.add(1, k, k < site.count ? to_shift : A(0));  // missing elements were read as zeros, to which `more` may add
    }
  }
};

// Three blocks to a multiprocessor: for the four that ptxas aims at by itself, half precision spills on sm_80.
template <typename S, typename Terms>
__global__ void __launch_bounds__(Sweep::kThreads, 3)
    interval_norm_relu_bwd_sums_kernel(const S* __restrict__ grad_stack,      // [N, outer, C, inner]
                                       const S* __restrict__ grad_radius,     // [outer, C, inner] or null
                                       const S* __restrict__ stack,           // [N, outer, C, inner]
                                       const S* __restrict__ radius,          // [outer, C, inner]
                                       const Compute<S>* __restrict__ scale,  // [C]
                                       const Compute<S>* __restrict__ shift,  // [C]
                                       double* __restrict__ partial,          // [parts, 2, period]
                                       int streams, Index size, Sweep sweep, Compute<S> slope, Terms terms) {
  using A = Compute<S>;
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  BackwardSums<S, decltype(terms())> body{{{grad_stack, streams, size}, grad_radius, {stack, streams, size}, radius},
                                          {scale, A(1), walker},
                                          {shift, A(0), walker},
                                          slope,
                                          terms(),
                                          {}};
  for_sites<1>(walker, body);
  body.sums.leave(sweep, blockIdx.x, partial);
}

template <typename S, typename More>
struct Backward {
  using A = Compute<S>;
  using Loaded = typename Gradients<S>::Loaded;

  Gradients<S> maps;
  PerChannel<kPack<S>, A> scale, shift, mul, add;
  Streams<S> out;
  S* out_radius;
  bool statistics;  // whether the gradient passes through them
  A slope;
  More more;

  __device__ Loaded load(Site site) const { return maps.load(site); }

  __device__ void apply(Site site, Loaded& x) const {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      A center = x.grad_center[k], spread = x.grad_radius[k];
      const A y = scale[k] * x.center[k] + shift[k], width = absolute(scale[k]) * x.radius[k];
      interval_relu_grad(center, spread, y, width, slope);
      more(center, spread, y, width);
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

template <typename S, typename Terms>
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
                                  int streams, Index size, Sweep sweep, Compute<S> slope, Terms terms) {
  using A = Compute<S>;
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  const Backward<S, decltype(terms())> body{{{grad_stack, streams, size}, grad_radius, {stack, streams, size}, radius},
                                            {scale, A(1), walker},
                                            {shift, A(0), walker},
                                            {nominal_mul, A(0), walker},
                                            {nominal_add, A(0), walker},
                                            {out_grad_stack, streams, size},
                                            out_grad_radius,
                                            nominal_mul != nullptr,
                                            slope,
                                            terms()};
  for_sites<1>(walker, body);
}

template <typename S, typename Terms>
void bwd_sums_pass(const char* name, const S* grad_stack, const S* grad_radius, const S* stack, const S* radius,
                   const Compute<S>* scale, const Compute<S>* shift, Compute<S>* sum_scale, Compute<S>* sum_shift,
                   double* workspace, int streams, Index outer, Index channels, Index inner, Compute<S> slope,
                   Terms terms, cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  const Sweep sweep = sums_sweep(outer, channels, inner, kPack<S>);
  launch(name, interval_norm_relu_bwd_sums_kernel<S, Terms>, sweep.blocks(), sweep.threads, stream, grad_stack,
         grad_radius, stack, radius, scale, shift, workspace, streams, outer * channels * inner, sweep, slope, terms);
  launch(name, channel_sums_end_kernel<Compute<S>>, ceil_div(channels, kWarps), RowTiles::kThreads, stream, workspace,
         sum_scale, sum_shift, sweep.parts, sweep.period, channels);
}

template <typename S, typename Terms>
void bwd_pass(const char* name, const S* grad_stack, const S* grad_radius, const S* stack, const S* radius,
              const Compute<S>* scale, const Compute<S>* shift, const Compute<S>* nominal_mul,
              const Compute<S>* nominal_add, S* out_grad_stack, S* out_grad_radius, int streams, Index outer,
              Index channels, Index inner, Compute<S> slope, Terms terms, cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  const Sweep sweep = elementwise_sweep(scale != nullptr, outer, channels, inner, kPack<S>);
  launch(name, interval_norm_relu_bwd_kernel<S, Terms>, sweep.blocks(), sweep.threads, stream, grad_stack, grad_radius,
         stack, radius, scale, shift, nominal_mul, nominal_add, out_grad_stack, out_grad_radius, streams,
         outer * channels * inner, sweep, slope, terms);
}

}  // namespace
}  // namespace cuda
}  // namespace fastbound
