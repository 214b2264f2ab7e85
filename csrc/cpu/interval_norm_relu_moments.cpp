// Compiled once per instruction set.
#include "interval_norm_relu_moments.h"

#include "cpu/interval_norm_relu_moments_cpu.h"
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

template <typename S, typename T>
void forward(const S* stack, const S* radius, const T* scale, const T* shift, S* out_stack, S* out_radius, T* moments,
             double* scratch /* [shares, 8] */, int streams, Index outer, Index channels, Index inner, T slope,
             int threads) {
  const Shape shape{outer, channels, inner};
  const Forward<S> pass = forward_of(stack, radius, out_stack, out_radius, streams, shape, slope);
  const int shares = useful_threads(threads, shape.size());
  for (Index i = 0; i < shares * kMoments; ++i) scratch[i] = 0;
  affine_runs(shape, scale, shift, shares, [&](int share, Index first, Index length, auto a, auto b) {
    // Block by block, so that what the pass has read is still in the cache.
    for (Index begin = 0; begin < length; begin += kRun) {
      const Index block = smaller(kRun, length - begin);
      pass(first + begin, block, a.from(begin), b.from(begin));
      add_moments(pass.center + first + begin, pass.radius + first + begin, block, a.from(begin), b.from(begin),
                  scratch + kMoments * share);
    }
  });
  for (int share = 1; share < shares; ++share)
    for (int i = 0; i < kMoments; ++i) scratch[i] += scratch[kMoments * share + i];
  moments_of(scratch, static_cast<double>(shape.size()), moments);
}

template <typename S, typename T>
void backward_sums(const S* grad_stack, const S* grad_radius, const T* grad_moments, const T* moments, const S* stack,
                   const S* radius, const T* scale, const T* shift, T* sum_scale, T* sum_shift, double* scratch,
                   int streams, Index outer, Index channels, Index inner, T slope, int threads) {
  const Shape shape{outer, channels, inner};
  backward_sums_pass(grad_stack, grad_radius, stack, radius, scale, shift, sum_scale, sum_shift, scratch, streams,
                     shape, slope, threads, moments_grad(grad_moments, moments, static_cast<double>(shape.size())));
}

template <typename S, typename T>
void backward(const S* grad_stack, const S* grad_radius, const T* grad_moments, const T* moments, const S* stack,
              const S* radius, const T* scale, const T* shift, const T* nominal_mul, const T* nominal_add,
              S* out_grad_stack, S* out_grad_radius, int streams, Index outer, Index channels, Index inner, T slope,
              int threads) {
  const Shape shape{outer, channels, inner};
  backward_pass(grad_stack, grad_radius, stack, radius, scale, shift, nominal_mul, nominal_add, out_grad_stack,
                out_grad_radius, streams, shape, slope, threads,
                moments_grad(grad_moments, moments, static_cast<double>(shape.size())));
}

}  // namespace

template <typename S>
IntervalNormReluMoments<S> interval_norm_relu_moments() {
  return {forward<S>, backward_sums<S>, backward<S>};
}

template IntervalNormReluMoments<float> interval_norm_relu_moments<float>();
template IntervalNormReluMoments<double> interval_norm_relu_moments<double>();
template IntervalNormReluMoments<BFloat16> interval_norm_relu_moments<BFloat16>();

}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
