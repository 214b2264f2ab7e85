// Compiled once per instruction set. Everything here is bound by memory, so each pass reads and writes each map once.
#include "singleprop_norm_relu.h"

#include "cpu/map_runs.h"
#include "cpu/run.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

template <typename Activation, typename S, typename Coefficient>
void forward_run(const SinglePropNormReluFwd<S>& pass, Index first, Index length, Coefficient scale,
                 Coefficient shift) {
  const S* __restrict__ x = pass.nominal + first;
  const S* __restrict__ r = pass.radius + first;
  S* __restrict__ y = pass.out_nominal + first;
  S* __restrict__ yr = pass.out_radius + first;
#pragma omp simd
  for (Index i = 0; i < length; ++i) {
    Compute<S> value = x[i], spread = r[i];
    singleprop_affine<Activation>(value, spread, scale[i], shift[i]);
    y[i] = value;
    yr[i] = spread;
  }
}

template <typename S>
void execute(const SinglePropNormReluFwd<S>& pass, double*, int threads) {
  with_activation(pass.activation, [&](auto function) {
    const auto visit = [&](int, auto... run) { forward_run<decltype(function)>(pass, run...); };
    affine_runs(pass, useful_threads(threads, pass.size()), visit, pass.scale, pass.shift);
  });
}

template <bool kStatistics, typename Activation, typename S, typename Coefficient>
void backward_run(const SinglePropNormReluBwd<S>& pass, Index first, Index length, Coefficient scale, Coefficient shift,
                  Coefficient mul, Coefficient add) {
  using T = Compute<S>;
  const S* __restrict__ g = pass.grad_nominal + first;
  const S* __restrict__ gr = pass.grad_radius + first;
  const S* __restrict__ x = pass.nominal + first;
  const S* __restrict__ r = pass.radius + first;
  S* __restrict__ d = pass.out_grad_nominal + first;
  S* __restrict__ dr = pass.out_grad_radius + first;
#pragma omp simd
  for (Index i = 0; i < length; ++i) {
    T value_grad = g[i], radius_grad = gr[i];
    singleprop_affine_grad<Activation, T>(value_grad, radius_grad, x[i], r[i], scale[i], shift[i]);
    d[i] = kStatistics ? value_grad + (mul[i] * x[i] + add[i]) : value_grad;
    dr[i] = radius_grad;
  }
}

template <typename S>
void execute(const SinglePropNormReluBwd<S>& pass, double*, int threads) {
  with_activation(pass.activation, [&](auto function) {
    using Activation = decltype(function);
    const auto visit = [&](int, auto... run) {
      pass.nominal_mul != nullptr ? backward_run<true, Activation>(pass, run...)
                                  : backward_run<false, Activation>(pass, run...);
    };
    affine_runs(pass, useful_threads(threads, pass.size()), visit, pass.scale, pass.shift, pass.nominal_mul,
                pass.nominal_add);
  });
}

// The two terms of element i of a run.
template <typename Activation, typename S>
struct Terms {
  using T = Compute<S>;
  const S* __restrict__ g, * __restrict__ gr, * __restrict__ x, * __restrict__ r;

  __attribute__((always_inline)) void operator()(Index i, T scale, T magnitude, T sign, T shift, T& to_scale,
                                                 T& to_shift) const {
    singleprop_terms<Activation, T>(g[i], gr[i], x[i], r[i], scale, magnitude, sign, shift, to_scale, to_shift);
  }
};

template <typename S>
void execute(const SinglePropNormReluBwdSums<S>& pass, double* scratch, int threads) {
  with_activation(pass.activation, [&](auto function) {
    affine_sums(pass, scratch, threads, [&](Index first) {
      return Terms<decltype(function), S>{pass.grad_nominal + first, pass.grad_radius + first, pass.nominal + first,
                                          pass.radius + first};
    });
  });
}

}  // namespace

FASTBOUND_RUN_MAPS(SinglePropNormReluFwd)
FASTBOUND_RUN_MAPS(SinglePropNormReluBwdSums)
FASTBOUND_RUN_MAPS(SinglePropNormReluBwd)

}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
