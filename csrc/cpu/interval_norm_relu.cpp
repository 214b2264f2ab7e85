// Compiled once per instruction set.
#include "interval_norm_relu.h"

#include "cpu/interval_norm_relu_passes.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

template <typename S>
void execute(const NormStatistics<S>& pass, double* scratch, int threads) {
  using T = Compute<S>;
  const S* x = pass.x;
  const Shape& shape = pass;
  const Index channels = shape.channels, inner = shape.inner;
  const int shares = useful_threads(threads, shape.size());
  const Repeated<S> shifts(inner == 1 ? x : nullptr, channels);
  two_sums<double>(
      shape, scratch, shares, shape.outer,
      [&](Index first, Index length, Index column, double* __restrict__ sums, double* __restrict__ squares) {
        const S* __restrict__ run = x + first;
        const S* __restrict__ shift = shifts.values.values + column;
#pragma omp simd
        for (Index i = 0; i < length; ++i) add_about(shift[i], run[i], sums[i], squares[i]);
      },
      [&](Index first, Index length, Index channel, double& sum, double& square) {
        const S* __restrict__ run = x + first;
        const double shift = x[channel * inner];
        double s = 0, q = 0;
#pragma omp simd reduction(+ : s, q)
        for (Index i = 0; i < length; ++i) add_about(shift, run[i], s, q);
        sum += s;
        square += q;
      });
  const double count = static_cast<double>(shape.outer) * static_cast<double>(inner);
  for (Index c = 0; c < channels; ++c) {
    double exact_mean, exact_var;
    statistics_of(scratch[c], scratch[channels + c], count, x[c * inner], exact_mean, exact_var);
    pass.mean[c] = static_cast<T>(exact_mean);
    pass.var[c] = static_cast<T>(exact_var);
  }
}

template <typename S>
void execute(const IntervalNormReluFwd<S>& pass, double*, int threads) {
  affine_runs(
      pass, useful_threads(threads, pass.size()), [&](int, auto... run) { forward_run(pass, run...); }, pass.scale,
      pass.shift);
}

template <typename S>
void execute(const IntervalNormReluBwdSums<S>& pass, double* scratch, int threads) {
  backward_sums_pass(pass, scratch, threads);
}

template <typename S>
void execute(const IntervalNormReluBwd<S>& pass, double*, int threads) {
  backward_pass(pass, threads);
}

}  // namespace

FASTBOUND_RUN_MAPS(NormStatistics)
FASTBOUND_RUN_MAPS(IntervalNormReluFwd)
FASTBOUND_RUN_MAPS(IntervalNormReluBwdSums)
FASTBOUND_RUN_MAPS(IntervalNormReluBwd)

}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
