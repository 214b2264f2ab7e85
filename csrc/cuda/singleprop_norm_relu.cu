#include "cuda/singleprop_norm_relu.cuh"
#include "cuda/sums.cuh"
#include "interval_norm_relu.h"
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

  const S *nominal, *radius;
  PerChannel<kPack<S>, A> scale, shift;
  S *out_nominal, *out_radius;

  __device__ Loaded load(Site site) const {
    return {cuda::load(nominal + site.at, site.count), cuda::load(radius + site.at, site.count)};
  }

  __device__ void apply(Site site, Loaded& x) const {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      A value = scale[k] * x.nominal[k] + shift[k], spread = absolute(scale[k]) * x.radius[k];
      Activation::apply(value, spread);
      x.nominal.set(k, value);
      x.radius.set(k, spread);
    }
    store(out_nominal + site.at, x.nominal, site.count);
    store(out_radius + site.at, x.radius, site.count);
  }
};

// Six blocks to a multiprocessor: for the seven that ptxas aims at by itself, the division in double spills.
template <typename S, typename Activation>
__global__ void __launch_bounds__(Sweep::kThreads, 6)
    singleprop_norm_relu_fwd_kernel(const S* __restrict__ nominal,         // [outer, C, inner]
                                    const S* __restrict__ radius,          // [outer, C, inner]
                                    const Compute<S>* __restrict__ scale,  // [C] or null
                                    const Compute<S>* __restrict__ shift,  // [C] or null
                                    S* __restrict__ out_nominal,           // [outer, C, inner]
                                    S* __restrict__ out_radius,            // [outer, C, inner]
                                    Sweep sweep) {
  using A = Compute<S>;
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  const Forward<S, Activation> body{nominal,     radius,    {scale, A(1), walker}, {shift, A(0), walker},
                                    out_nominal, out_radius};
  for_sites<2>(walker, body);
}

// The inputs of both backward passes.
template <typename S>
struct Gradients {
  struct Loaded {
    Pack<S> grad_nominal, grad_radius, nominal, radius;
  };

  const S *grad_nominal, *grad_radius, *nominal, *radius;

  __device__ Loaded load(Site site) const {
    return {cuda::load(grad_nominal + site.at, site.count), cuda::load(grad_radius + site.at, site.count),
            cuda::load(nominal + site.at, site.count), cuda::load(radius + site.at, site.count)};
  }
};

template <typename S, typename Activation>
struct BackwardSums {
  using A = Compute<S>;
  using Loaded = typename Gradients<S>::Loaded;

  Gradients<S> maps;
  PerChannel<kPack<S>, A> scale, shift;
  Sums<2, kPack<S>> sums;

  __device__ Loaded load(Site site) const { return maps.load(site); }

  // An element that is missing was read as zeros, and so were its gradients: it adds zeros.
  __device__ void apply(Site, const Loaded& x) {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      A to_scale, to_shift;
      singleprop_affine_grad<Activation>(x.grad_nominal[k], x.grad_radius[k], x.nominal[k], x.radius[k], scale[k],
                                         absolute(scale[k]), sign(scale[k]), shift[k], to_scale, to_shift);
      sums.add(0, k, to_scale);
      sums.add(1, k, to_shift);
    }
  }
};

template <typename S, typename Activation>
__global__ void __launch_bounds__(Sweep::kThreads)
    singleprop_norm_relu_bwd_sums_kernel(const S* __restrict__ grad_nominal,    // [outer, C, inner]
                                         const S* __restrict__ grad_radius,     // [outer, C, inner]
                                         const S* __restrict__ nominal,         // [outer, C, inner]
                                         const S* __restrict__ radius,          // [outer, C, inner]
                                         const Compute<S>* __restrict__ scale,  // [C]
                                         const Compute<S>* __restrict__ shift,  // [C]
                                         double* __restrict__ partial,          // [parts, 2, period]
                                         Sweep sweep) {
  using A = Compute<S>;
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  BackwardSums<S, Activation> body{
      {grad_nominal, grad_radius, nominal, radius}, {scale, A(1), walker}, {shift, A(0), walker}, {}};
  for_sites<2>(walker, body);
  body.sums.leave(sweep, blockIdx.x, partial);
}

template <typename S, typename Activation>
struct Backward {
  using A = Compute<S>;
  using Loaded = typename Gradients<S>::Loaded;

  Gradients<S> maps;
  PerChannel<kPack<S>, A> scale, shift, mul, add;
  S *out_nominal, *out_radius;
  bool statistics;  // whether the gradient passes through them

  __device__ Loaded load(Site site) const { return maps.load(site); }

  __device__ void apply(Site site, Loaded& x) const {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      A value = x.grad_nominal[k], spread = x.grad_radius[k];
      const A magnitude = absolute(scale[k]);
      Activation::apply_grad(value, spread, scale[k] * x.nominal[k] + shift[k], magnitude * x.radius[k]);
      value = scale[k] * value;
      x.radius.set(k, magnitude * spread);
      x.nominal.set(k, statistics ? value + (mul[k] * x.nominal[k] + add[k]) : value);
    }
    store(out_nominal + site.at, x.nominal, site.count);
    store(out_radius + site.at, x.radius, site.count);
  }
};

template <typename S, typename Activation>
__global__ void __launch_bounds__(Sweep::kThreads)
    singleprop_norm_relu_bwd_kernel(const S* __restrict__ grad_nominal,          // [outer, C, inner]
                                    const S* __restrict__ grad_radius,           // [outer, C, inner]
                                    const S* __restrict__ nominal,               // [outer, C, inner]
                                    const S* __restrict__ radius,                // [outer, C, inner]
                                    const Compute<S>* __restrict__ scale,        // [C] or null
                                    const Compute<S>* __restrict__ shift,        // [C] or null
                                    const Compute<S>* __restrict__ nominal_mul,  // [C] or null
                                    const Compute<S>* __restrict__ nominal_add,  // [C] or null
                                    S* __restrict__ out_grad_nominal,            // [outer, C, inner]
                                    S* __restrict__ out_grad_radius,             // [outer, C, inner]
                                    Sweep sweep) {
  using A = Compute<S>;
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  const Backward<S, Activation> body{{grad_nominal, grad_radius, nominal, radius},
                                     {scale, A(1), walker},
                                     {shift, A(0), walker},
                                     {nominal_mul, A(0), walker},
                                     {nominal_add, A(0), walker},
                                     out_grad_nominal,
                                     out_grad_radius,
                                     nominal_mul != nullptr};
  for_sites<2>(walker, body);
}

}  // namespace

template <typename S>
void singleprop_norm_relu_fwd_launch(const S* nominal, const S* radius, const Compute<S>* scale,
                                     const Compute<S>* shift, S* out_nominal, S* out_radius, Index outer,
                                     Index channels, Index inner, int activation, cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  const Sweep sweep = elementwise_sweep(scale != nullptr, outer, channels, inner, kPack<S>);
  with_activation(activation, [&](auto function) {
    launch("singleprop_norm_relu_fwd", singleprop_norm_relu_fwd_kernel<S, decltype(function)>, sweep.blocks(),
           sweep.threads, stream, nominal, radius, scale, shift, out_nominal, out_radius, sweep);
  });
}

template <typename S>
void singleprop_norm_relu_bwd_sums_launch(const S* grad_nominal, const S* grad_radius, const S* nominal,
                                          const S* radius, const Compute<S>* scale, const Compute<S>* shift,
                                          Compute<S>* sum_scale, Compute<S>* sum_shift, double* workspace, Index outer,
                                          Index channels, Index inner, int activation, cudaStream_t stream,
                                          int device) {
  const DeviceGuard guard(device);
  const Sweep sweep = sums_sweep(outer, channels, inner, kPack<S>);
  with_activation(activation, [&](auto function) {
    launch("singleprop_norm_relu_bwd_sums", singleprop_norm_relu_bwd_sums_kernel<S, decltype(function)>, sweep.blocks(),
           sweep.threads, stream, grad_nominal, grad_radius, nominal, radius, scale, shift, workspace, sweep);
  });
  launch("singleprop_norm_relu_sums_end", channel_sums_end_kernel<Compute<S>>, ceil_div(channels, kWarps),
         RowTiles::kThreads, stream, workspace, sum_scale, sum_shift, sweep.parts, sweep.period, channels);
}

template <typename S>
void singleprop_norm_relu_bwd_launch(const S* grad_nominal, const S* grad_radius, const S* nominal, const S* radius,
                                     const Compute<S>* scale, const Compute<S>* shift, const Compute<S>* nominal_mul,
                                     const Compute<S>* nominal_add, S* out_grad_nominal, S* out_grad_radius,
                                     Index outer, Index channels, Index inner, int activation, cudaStream_t stream,
                                     int device) {
  const DeviceGuard guard(device);
  const Sweep sweep = elementwise_sweep(scale != nullptr, outer, channels, inner, kPack<S>);
  with_activation(activation, [&](auto function) {
    launch("singleprop_norm_relu_bwd", singleprop_norm_relu_bwd_kernel<S, decltype(function)>, sweep.blocks(),
           sweep.threads, stream, grad_nominal, grad_radius, nominal, radius, scale, shift, nominal_mul, nominal_add,
           out_grad_nominal, out_grad_radius, sweep);
  });
}

#define FASTBOUND_INSTANTIATE(S)                                                                                  \
  template void singleprop_norm_relu_fwd_launch(const S*, const S*, const Compute<S>*, const Compute<S>*, S*, S*, \
                                                Index, Index, Index, int, cudaStream_t, int);                     \
  template void singleprop_norm_relu_bwd_sums_launch(const S*, const S*, const S*, const S*, const Compute<S>*,   \
                                                     const Compute<S>*, Compute<S>*, Compute<S>*, double*, Index, \
                                                     Index, Index, int, cudaStream_t, int);                       \
  template void singleprop_norm_relu_bwd_launch(const S*, const S*, const S*, const S*, const Compute<S>*,        \
                                                const Compute<S>*, const Compute<S>*, const Compute<S>*, S*, S*,  \
                                                Index, Index, Index, int, cudaStream_t, int);
FASTBOUND_FOR_EACH_STORAGE(FASTBOUND_INSTANTIATE)
#undef FASTBOUND_INSTANTIATE

}  // namespace cuda
}  // namespace fastbound
