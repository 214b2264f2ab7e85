#include "cuda/sums.cuh"
#include "singleprop_norm_relu.h"

namespace fastbound {
namespace cuda {
namespace {

template <typename S, typename Activation>
struct Forward {
  using A = Compute<S>;
  struct Loaded {
    Pack<S> nominal, radius;
  };

  const SinglePropNormReluFwd<S>& pass;
  PerChannel<kPack<S>, A> scale, shift;

  __device__ Loaded load(Site site) const {
    return {cuda::load(pass.nominal + site.at, site.count), cuda::load(pass.radius + site.at, site.count)};
  }

  __device__ void apply(Site site, Loaded& x) const {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      A value = x.nominal[k], spread = x.radius[k];
      singleprop_affine<Activation>(value, spread, scale[k], shift[k]);
      x.nominal.set(k, value);
      x.radius.set(k, spread);
    }
    store(pass.out_nominal + site.at, x.nominal, site.count);
    store(pass.out_radius + site.at, x.radius, site.count);
  }
};

// Six blocks to a multiprocessor: for the seven that ptxas aims at by itself, the division in double spills.
template <typename S, typename Activation>
__global__ void __launch_bounds__(Sweep::kThreads, 6)
    singleprop_norm_relu_fwd_kernel(const __grid_constant__ SinglePropNormReluFwd<S> pass,
                                    const __grid_constant__ Sweep sweep) {
  using A = Compute<S>;
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  const Forward<S, Activation> body{pass, {pass.scale, A(1), walker}, {pass.shift, A(0), walker}};
  for_sites<2>(walker, body);
}

template <typename S>
void execute(const SinglePropNormReluFwd<S>& pass, double*, cudaStream_t stream) {
  const Sweep sweep = pass.sweep();
  with_activation(pass.activation, [&](auto function) {
    launch(pass.kName, singleprop_norm_relu_fwd_kernel<S, decltype(function)>, sweep.blocks(), sweep.threads, stream,
           pass, sweep);
  });
}

// The inputs of both backward passes.
template <typename S>
struct Gradients {
  Pack<S> grad_nominal, grad_radius, nominal, radius;

  static __device__ Gradients load(const SinglePropNormReluGrads<S>& pass, Site site) {
    return {cuda::load(pass.grad_nominal + site.at, site.count), cuda::load(pass.grad_radius + site.at, site.count),
            cuda::load(pass.nominal + site.at, site.count), cuda::load(pass.radius + site.at, site.count)};
  }
};

template <typename S, typename Activation>
struct BackwardSums {
  using A = Compute<S>;

  const SinglePropNormReluBwdSums<S>& pass;
  PerChannel<kPack<S>, A> scale, shift;
  Sums<2, kPack<S>> sums;

  __device__ Gradients<S> load(Site site) const { return Gradients<S>::load(pass, site); }

  // An element that is missing was read as zeros, and so were its gradients: it adds zeros.
  __device__ void apply(Site, const Gradients<S>& x) {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      A to_scale, to_shift;
      singleprop_terms<Activation>(x.grad_nominal[k], x.grad_radius[k], x.nominal[k], x.radius[k], scale[k],
                                   absolute(scale[k]), sign(scale[k]), shift[k], to_scale, to_shift);
      sums.add(0, k, to_scale);
      sums.add(1, k, to_shift);
    }
  }
};

template <typename S, typename Activation>
__global__ void __launch_bounds__(Sweep::kThreads)
    singleprop_norm_relu_bwd_sums_kernel(const __grid_constant__ SinglePropNormReluBwdSums<S> pass,
                                         double* __restrict__ partial,  // [parts, 2, period]
                                         const __grid_constant__ Sweep sweep) {
  using A = Compute<S>;
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  BackwardSums<S, Activation> body{pass, {pass.scale, A(1), walker}, {pass.shift, A(0), walker}, {}};
  for_sites<2>(walker, body);
  body.sums.leave(sweep, blockIdx.x, partial);
}

template <typename S>
void execute(const SinglePropNormReluBwdSums<S>& pass, double* workspace, cudaStream_t stream) {
  const Sweep sweep = pass.sweep();
  with_activation(pass.activation, [&](auto function) {
    launch(pass.kName, singleprop_norm_relu_bwd_sums_kernel<S, decltype(function)>, sweep.blocks(), sweep.threads,
           stream, pass, workspace, sweep);
  });
  end_sums(pass, workspace, stream);
}

template <typename S, typename Activation>
struct Backward {
  using A = Compute<S>;

  const SinglePropNormReluBwd<S>& pass;
  PerChannel<kPack<S>, A> scale, shift, mul, add;

  __device__ Gradients<S> load(Site site) const { return Gradients<S>::load(pass, site); }

  __device__ void apply(Site site, Gradients<S>& x) const {
    const bool statistics = pass.nominal_mul != nullptr;  // whether the gradient passes through them
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      A value = x.grad_nominal[k], spread = x.grad_radius[k];
      singleprop_affine_grad<Activation>(value, spread, x.nominal[k], x.radius[k], scale[k], shift[k]);
      x.radius.set(k, spread);
      x.nominal.set(k, statistics ? value + (mul[k] * x.nominal[k] + add[k]) : value);
    }
    store(pass.out_grad_nominal + site.at, x.nominal, site.count);
    store(pass.out_grad_radius + site.at, x.radius, site.count);
  }
};

template <typename S, typename Activation>
__global__ void __launch_bounds__(Sweep::kThreads)
    singleprop_norm_relu_bwd_kernel(const __grid_constant__ SinglePropNormReluBwd<S> pass,
                                    const __grid_constant__ Sweep sweep) {
  using A = Compute<S>;
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  const Backward<S, Activation> body{pass,
                                     {pass.scale, A(1), walker},
                                     {pass.shift, A(0), walker},
                                     {pass.nominal_mul, A(0), walker},
                                     {pass.nominal_add, A(0), walker}};
  for_sites<2>(walker, body);
}

template <typename S>
void execute(const SinglePropNormReluBwd<S>& pass, double*, cudaStream_t stream) {
  const Sweep sweep = pass.sweep();
  with_activation(pass.activation, [&](auto function) {
    launch(pass.kName, singleprop_norm_relu_bwd_kernel<S, decltype(function)>, sweep.blocks(), sweep.threads, stream,
           pass, sweep);
  });
}

}  // namespace

FASTBOUND_LAUNCHES(SinglePropNormReluFwd)
FASTBOUND_LAUNCHES(SinglePropNormReluBwdSums)
FASTBOUND_LAUNCHES(SinglePropNormReluBwd)

}  // namespace cuda
}  // namespace fastbound
