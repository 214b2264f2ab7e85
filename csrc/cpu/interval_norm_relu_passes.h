// The passes of interval_norm_relu over all streams, for every operator that consists of them. Each pass reads and
// writes each map only once, because it is bound by memory.
#pragma once

#include "cpu/map_runs.h"
#include "cpu/run.h"
#include "interval_norm_relu.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

template <bool kNominal, typename S, typename Coefficient>
void forward_run(const IntervalNormReluFwd<S>& pass, Index first, Index length, Coefficient scale, Coefficient shift) {
  using T = Compute<S>;
  const S* __restrict__ x = pass.stack + (kNominal ? first : 0);
  const S* __restrict__ c = pass.center(pass.stack) + first;
  const S* __restrict__ r = pass.radius + first;
  S* __restrict__ y = pass.out_stack + (kNominal ? first : 0);
  S* __restrict__ yc = pass.center(pass.out_stack) + first;
  S* __restrict__ yr = pass.out_radius + first;
  const T a = pass.slope;
#pragma omp simd
  for (Index i = 0; i < length; ++i) {
    T new_center = c[i], new_radius = r[i];
    affine_relu(new_center, new_radius, scale[i], shift[i], a);
    yc[i] = new_center;
    yr[i] = new_radius;
    if (kNominal) y[i] = leaky_relu(scale[i] * x[i] + shift[i], a);
  }
}

template <typename S, typename Coefficient>
void forward_run(const IntervalNormReluFwd<S>& pass, Index first, Index length, Coefficient scale, Coefficient shift) {
  if (pass.streams == 2)
    forward_run<true>(pass, first, length, scale, shift);
  else
    forward_run<false>(pass, first, length, scale, shift);
}

template <bool kNominal, bool kRadius, bool kStatistics, typename Pass, typename Coefficient>
void backward_run(const Pass& pass, Index first, Index length, Coefficient scale, Coefficient shift, Coefficient mul,
                  Coefficient add) {
  using T = typename Pass::T;
  const auto* __restrict__ g = pass.grad_stack + (kNominal ? first : 0);
  const auto* __restrict__ gc = pass.center(pass.grad_stack) + first;
  const auto* __restrict__ gr = pass.grad_radius + (kRadius ? first : 0);
  const auto* __restrict__ x = pass.stack + (kNominal ? first : 0);
  const auto* __restrict__ c = pass.center(pass.stack) + first;
  const auto* __restrict__ r = pass.radius + first;
  auto* __restrict__ d = pass.out_grad_stack + (kNominal ? first : 0);
  auto* __restrict__ dc = pass.center(pass.out_grad_stack) + first;
  auto* __restrict__ dr = pass.out_grad_radius + first;
  const T a = pass.slope;
  const auto more = pass.more();
#pragma omp simd
  for (Index i = 0; i < length; ++i) {
    T new_center = gc[i], new_radius = kRadius ? T(gr[i]) : T(0);
    affine_relu_grad<T>(new_center, new_radius, c[i], r[i], scale[i], shift[i], a, more);
    dc[i] = new_center;
    dr[i] = new_radius;
    if (kNominal) {
      const T value = x[i];
      const T gated = scale[i] * leaky_relu_grad<T>(g[i], scale[i] * value + shift[i], a);
      d[i] = kStatistics ? gated + (mul[i] * value + add[i]) : gated;
    }
  }
}

template <bool kNominal, bool kStatistics, typename Pass, typename... Coefficients>
void backward_run(const Pass& pass, Index first, Index length, Coefficients... coefficients) {
  if (pass.grad_radius != nullptr)
    backward_run<kNominal, true, kStatistics>(pass, first, length, coefficients...);
  else
    backward_run<kNominal, false, kStatistics>(pass, first, length, coefficients...);
}

template <typename Pass, typename... Coefficients>
void backward_run(const Pass& pass, Index first, Index length, Coefficients... coefficients) {
  if (pass.streams == 1)
    backward_run<false, false>(pass, first, length, coefficients...);
  else if (pass.nominal_mul != nullptr)
    backward_run<true, true>(pass, first, length, coefficients...);
  else
    backward_run<true, false>(pass, first, length, coefficients...);
}

template <typename Pass>
void backward_pass(const Pass& pass, int threads) {
  affine_runs(
      pass, useful_threads(threads, pass.size()), [&](int, auto... run) { backward_run(pass, run...); }, pass.scale,
      pass.shift, pass.nominal_mul, pass.nominal_add);
}

// The two terms of element i of the run that begins at `first`.
template <bool kNominal, bool kRadius, typename Pass>
struct SumTerms {
  using T = typename Pass::T;
  using S = typename Pass::Stored;
  const S* __restrict__ g, * __restrict__ gc, * __restrict__ gr, * __restrict__ x, * __restrict__ c, * __restrict__ r;
  T slope;
  typename Pass::More more;

  SumTerms(const Pass& of, Index first)
      : g(of.grad_stack + (kNominal ? first : 0)),
        gc(of.center(of.grad_stack) + first),
        gr(kRadius ? of.grad_radius + first : nullptr),
        x(of.stack + (kNominal ? first : 0)),
        c(of.center(of.stack) + first),
        r(of.radius + first),
        slope(of.slope),
        more(of.more()) {}
  __attribute__((always_inline)) void operator()(Index i, T scale, T magnitude, T sign, T shift, T& to_scale,
                                                 T& to_shift) const {
    affine_relu_terms<T>(gc[i], kRadius ? T(gr[i]) : T(0), c[i], r[i], scale, magnitude, sign, shift, slope, more,
                         to_scale, to_shift);
    if (kNominal) add_nominal_grad<T>(g[i], x[i], scale, shift, slope, to_scale, to_shift);
  }
};

template <bool kNominal, bool kRadius, typename Pass>
void backward_sums_pass(const Pass& pass, double* scratch, int threads) {
  affine_sums(pass, scratch, threads, [&](Index first) { return SumTerms<kNominal, kRadius, Pass>(pass, first); });
}

template <typename Pass>
void backward_sums_pass(const Pass& pass, double* scratch, int threads) {
  const bool has_nominal = pass.streams == 2, has_radius = pass.grad_radius != nullptr;
  if (has_nominal && has_radius)
    backward_sums_pass<true, true>(pass, scratch, threads);
  else if (has_nominal)
    backward_sums_pass<true, false>(pass, scratch, threads);
  else if (has_radius)
    backward_sums_pass<false, true>(pass, scratch, threads);
  else
    backward_sums_pass<false, false>(pass, scratch, threads);
}

}  // namespace
}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
