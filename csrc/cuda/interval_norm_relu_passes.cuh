// The passes of interval_norm_relu over all streams, for every operator that consists of them.
#pragma once

#include "cuda/sums.cuh"
#include "interval_norm_relu.h"

namespace fastbound {
namespace cuda {
namespace {

template <typename S>
struct Forward {
  using A = Compute<S>;
  struct Loaded {
    Pack<S> nominal, center, radius;
  };

  const IntervalNormReluFwd<S>& pass;
  PerChannel<kPack<S>, A> scale, shift;

  __device__ Forward(const IntervalNormReluFwd<S>& of, const Walker& walker)
      : pass(of), scale(of.scale, A(1), walker), shift(of.shift, A(0), walker) {}

  __device__ Loaded load(Site site) const {
    return {load_or_zero(pass.nominal(pass.stack), site.at, site.count),
            cuda::load(pass.center(pass.stack) + site.at, site.count), cuda::load(pass.radius + site.at, site.count)};
  }

  __device__ void apply(Site site, Loaded& x) const {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      A center = x.center[k], spread = x.radius[k];
      affine_relu(center, spread, scale[k], shift[k], pass.slope);
      x.center.set(k, center);
      x.radius.set(k, spread);
      x.nominal.set(k, leaky_relu(scale[k] * x.nominal[k] + shift[k], pass.slope));
    }
    store(pass.center(pass.out_stack) + site.at, x.center, site.count);
    store(pass.out_radius + site.at, x.radius, site.count);
    if (pass.streams == 2) store(pass.out_stack + site.at, x.nominal, site.count);
  }
};

// What a thread of both backward passes reads and keeps.
template <typename P>
struct Gradients {
  using S = typename P::Stored;
  using A = Compute<S>;
  struct Loaded {
    Pack<S> grad_nominal, grad_center, grad_radius, nominal, center, radius;
  };

  const P& pass;
  PerChannel<kPack<S>, A> scale, shift;
  typename P::More more;

  __device__ Gradients(const P& of, const Walker& walker)
      : pass(of), scale(of.scale, A(1), walker), shift(of.shift, A(0), walker), more(of.more()) {}

  __device__ Loaded load(Site site) const {
    return {load_or_zero(pass.nominal(pass.grad_stack), site.at, site.count),
            cuda::load(pass.center(pass.grad_stack) + site.at, site.count),
            load_or_zero(pass.grad_radius, site.at, site.count),
            load_or_zero(pass.nominal(pass.stack), site.at, site.count),
            cuda::load(pass.center(pass.stack) + site.at, site.count),
            cuda::load(pass.radius + site.at, site.count)};
  }
};

template <typename P>
struct BackwardSums : Gradients<P> {
  using typename Gradients<P>::A;
  using typename Gradients<P>::S;

  Sums<2, kPack<S>> sums;

  using Gradients<P>::Gradients;

  __device__ void apply(Site site, const typename Gradients<P>::Loaded& x) {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      const A scale = this->scale[k], shift = this->shift[k], slope = this->pass.slope;
      A to_scale, to_shift;
      affine_relu_terms(x.grad_center[k], x.grad_radius[k], x.center[k], x.radius[k], scale, absolute(scale),
                        sign(scale), shift, slope, this->more, to_scale, to_shift);
      add_nominal_grad(x.grad_nominal[k], x.nominal[k], scale, shift, slope, to_scale, to_shift);
      sums.add(0, k, to_scale);
      sums.add(1, k, k < site.count ? to_shift : A(0));  // missing elements were read as zeros, to which `more` may add
    }
  }
};

// Three blocks to a multiprocessor: for the four that ptxas aims at by itself, half precision spills on sm_80.
template <typename P>
__global__ void __launch_bounds__(Sweep::kThreads, 3)
    interval_norm_relu_bwd_sums_kernel(const __grid_constant__ P pass,
                                       double* __restrict__ partial,  // [parts, 2, period]
                                       const __grid_constant__ Sweep sweep) {
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  BackwardSums<P> body(pass, walker);
  for_sites<1>(walker, body);
  body.sums.leave(sweep, blockIdx.x, partial);
}

template <typename P>
void bwd_sums_pass(const P& pass, double* workspace /* [parts, 2, period] */, cudaStream_t stream) {
  const Sweep sweep = pass.sweep();
  launch(P::kName, interval_norm_relu_bwd_sums_kernel<P>, sweep.blocks(), sweep.threads, stream, pass, workspace,
         sweep);
  end_sums(pass, workspace, stream);
}

template <typename P>
struct Backward : Gradients<P> {
  using typename Gradients<P>::A;
  using typename Gradients<P>::S;

  PerChannel<kPack<S>, A> mul, add;

  __device__ Backward(const P& of, const Walker& walker)
      : Gradients<P>(of, walker), mul(of.nominal_mul, A(0), walker), add(of.nominal_add, A(0), walker) {}

  __device__ void apply(Site site, typename Gradients<P>::Loaded& x) const {
    const P& pass = this->pass;
    const bool statistics = pass.nominal_mul != nullptr;  // whether the gradient passes through them
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      const A scale = this->scale[k], shift = this->shift[k];
      A center = x.grad_center[k], spread = x.grad_radius[k];
      affine_relu_grad(center, spread, x.center[k], x.radius[k], scale, shift, pass.slope, this->more);
      const A gated = scale * leaky_relu_grad(x.grad_nominal[k], scale * x.nominal[k] + shift, pass.slope);
      x.center.set(k, center);
      x.radius.set(k, spread);
      x.nominal.set(k, statistics ? gated + (mul[k] * x.nominal[k] + add[k]) : gated);
    }
    store(pass.center(pass.out_grad_stack) + site.at, x.center, site.count);
    store(pass.out_grad_radius + site.at, x.radius, site.count);
    if (pass.streams == 2) store(pass.out_grad_stack + site.at, x.nominal, site.count);
  }
};

template <typename P>
__global__ void __launch_bounds__(Sweep::kThreads)
    interval_norm_relu_bwd_kernel(const __grid_constant__ P pass, const __grid_constant__ Sweep sweep) {
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  const Backward<P> body(pass, walker);
  for_sites<1>(walker, body);
}

template <typename P>
void bwd_pass(const P& pass, cudaStream_t stream) {
  const Sweep sweep = pass.sweep();
  launch(P::kName, interval_norm_relu_bwd_kernel<P>, sweep.blocks(), sweep.threads, stream, pass, sweep);
}

}  // namespace
}  // namespace cuda
}  // namespace fastbound
