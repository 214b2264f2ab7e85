// Compiled once per instruction set.
#include "interval_norm_relu_moments.h"

#include "cpu/interval_norm_relu_passes.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

// Adds the sums of `moments_of` over one run to `sums` [8].
template <typename S, typename Coefficient>
void add_moments(const S* center, const S* radius, Index length, Coefficient scale, Coefficient shift, double* sums) {
  const S* __restrict__ c = center;
  const S* __restrict__ r = radius;
  double widths = 0, centers = 0, active = 0, inactive = 0, active_square = 0, inactive_square = 0;
  Index active_count = 0, inactive_count = 0;
#pragma omp simd reduction(+ : widths, centers, active, inactive, active_square, inactive_square, active_count, \
                               inactive_count)
  for (Index i = 0; i < length; ++i) {
    const MomentTerms<Compute<S>> of = moment_terms(scale[i] * c[i] + shift[i], absolute(scale[i]) * r[i]);
    const double above = static_cast<double>(of.active), below = static_cast<double>(of.inactive);
    widths += static_cast<double>(of.radius);
    centers += static_cast<double>(of.center);
    active += above;
    inactive += below;
    active_square += above * above;
    inactive_square += below * below;
    active_count += of.is_active;
    inactive_count += of.is_inactive;
  }
  sums[kSumRadius] += widths;
  sums[kSumCenter] += centers;
  sums[kCountActive] += static_cast<double>(active_count);
  sums[kCountInactive] += static_cast<double>(inactive_count);
  sums[kSumActive] += active;
  sums[kSumInactive] += inactive;
  sums[kSpreadActive] += active_square;
  sums[kSpreadInactive] += inactive_square;
}

template <typename S>
void execute(const IntervalNormReluMomentsFwd<S>& pass, double* scratch, int threads) {
  const int shares = useful_threads(threads, pass.size());
  for (Index i = 0; i < shares * kMoments; ++i) scratch[i] = 0;
  const auto visit = [&](int share, Index first, Index length, auto a, auto b) {
    // Block by block, so that what the pass has read is still in the cache.
    for (Index begin = 0; begin < length; begin += kRun) {
      const Index block = smaller(kRun, length - begin), at = first + begin;
      forward_run(pass, at, block, a.from(begin), b.from(begin));
      add_moments(pass.center(pass.stack) + at, pass.radius + at, block, a.from(begin), b.from(begin),
                  scratch + kMoments * share);
    }
  };
  affine_runs(pass, shares, visit, pass.scale, pass.shift);
  for (int share = 1; share < shares; ++share)
    for (int i = 0; i < kMoments; ++i) scratch[i] += scratch[kMoments * share + i];
  moments_of(scratch, static_cast<double>(pass.size()), pass.moments);
}

template <typename S>
void execute(const IntervalNormReluMomentsBwdSums<S>& pass, double* scratch, int threads) {
  backward_sums_pass(pass, scratch, threads);
}

template <typename S>
void execute(const IntervalNormReluMomentsBwd<S>& pass, double*, int threads) {
  backward_pass(pass, threads);
}

}  // namespace

FASTBOUND_RUN_MAPS(IntervalNormReluMomentsFwd)
FASTBOUND_RUN_MAPS(IntervalNormReluMomentsBwdSums)
FASTBOUND_RUN_MAPS(IntervalNormReluMomentsBwd)

}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
