// The moments of the bounds that enter a ReLU and their gradient, for CPU and CUDA alike.
// fastbound/reference/interval_norm_relu_moments.py says what they mean.
#pragma once

#include "interval_norm_relu.h"

namespace fastbound {

// With center c, radius r and mu the mean of c; active: c - r > 0, inactive: c + r < 0.
enum Moment {
  kSumRadius,
  kSumCenter,
  kCountActive,
  kCountInactive,
  kSumActive,       // of c
  kSumInactive,     // of c
  kSpreadActive,    // of (c - mu)^2
  kSpreadInactive,  // of (c - mu)^2
  kMoments
};

// The terms of one element in the sums that `moments_of` takes. By value: sums by reference keep g++ from vectorising
// the loops around it.
template <typename T>
struct MomentTerms {
  T radius, center;
  bool is_active, is_inactive;
  T active, inactive;  // the center there, else 0
};

template <typename T>
FASTBOUND_HD MomentTerms<T> moment_terms(T center, T radius) {
  const bool is_active = center - radius > T(0), is_inactive = center + radius < T(0);
  return {radius, center, is_active, is_inactive, is_active ? center : T(0), is_inactive ? center : T(0)};
}

// Turns the sums of one pass, with c^2 for the spreads, into the moments:
// sum (c - mu)^2 = sum c^2 - 2 mu sum c + n mu^2. In double, because the terms may cancel.
template <typename T>
FASTBOUND_HD void moments_of(const double* sums /* [8] */, double size, T* moments /* [8] */) {
  for (int i = 0; i < kMoments; ++i) moments[i] = static_cast<T>(sums[i]);
  const double mean = size > 0 ? sums[kSumCenter] / size : 0;
  for (int side = 0; side < 2; ++side) {
    const double spread =
        sums[kSpreadActive + side] - 2 * mean * sums[kSumActive + side] + mean * mean * sums[kCountActive + side];
    moments[kSpreadActive + side] = static_cast<T>(spread > 0 || spread != spread ? spread : 0);  // NaN stays NaN
  }
}

// Adds the gradient of the moments to those of the center and radius of one element. mu moves with every center, hence
// the term for all elements.
template <typename T>
struct MomentsGrad {
  T mean, to_radius, to_center;
  T active, inactive;              // on the center of an active or inactive element
  T twice_active, twice_inactive;  // times c - mu, the same

  FASTBOUND_HD void operator()(T& grad_center, T& grad_radius, T center, T radius) const {
    const T offset = center - mean;
    const T of_active = active + twice_active * offset;
    const T of_inactive = inactive + twice_inactive * offset;
    grad_center +=
        to_center + (center - radius > T(0) ? of_active : T(0)) + (center + radius < T(0) ? of_inactive : T(0));
    grad_radius += to_radius;
  }
};

template <typename T>
FASTBOUND_HD MomentsGrad<T> moments_grad(const T* grad /* [8] */, const T* moments /* [8] */, double size) {
  const double mean = static_cast<double>(moments[kSumCenter]) / size;
  double moved = 0;  // the sum of d spread / d mu
  for (int side = 0; side < 2; ++side)
    moved -=
        2 * static_cast<double>(grad[kSpreadActive + side]) *
        (static_cast<double>(moments[kSumActive + side]) - mean * static_cast<double>(moments[kCountActive + side]));
  return {static_cast<T>(mean),
          grad[kSumRadius],
          static_cast<T>(static_cast<double>(grad[kSumCenter]) + moved / size),
          grad[kSumActive],
          grad[kSumInactive],
          2 * grad[kSpreadActive],
          2 * grad[kSpreadInactive]};
}

template <typename S>
struct IntervalNormReluMomentsFwd : IntervalNormReluFwd<S> {
  static constexpr const char* kName = "interval_norm_relu_moments_fwd";

  Compute<S>* moments;  // [8]

  template <typename Fields>
  void fields(Fields& f) {
    IntervalNormReluFwd<S>::fields(f);
    f.out("moments", moments, {kMoments});
  }
  Index scratch(int threads) const { return kMoments * threads; }
  Sweep sweep() const { return sums_sweep<S>(*this); }
  Index workspace() const { return kMoments * sweep().blocks(); }
};

template <typename S>
struct IntervalNormReluMomentsGrads : IntervalNormReluGrads<S> {
  using More = MomentsGrad<Compute<S>>;

  const Compute<S>*grad_moments, *moments;  // [8]

  template <typename Fields>
  void fields(Fields& f) {
    IntervalNormReluGrads<S>::fields(f);
    f.in("grad_moments", grad_moments, {kMoments});
    f.in("moments", moments, {kMoments});
  }
  FASTBOUND_HD More more() const { return moments_grad(grad_moments, moments, static_cast<double>(this->size())); }
};

template <typename S>
struct IntervalNormReluMomentsBwdSums : NormReluBwdSums<S, IntervalNormReluMomentsGrads<S>> {
  static constexpr const char* kName = "interval_norm_relu_moments_bwd_sums";
};

template <typename S>
struct IntervalNormReluMomentsBwd : NormReluBwd<S, IntervalNormReluMomentsGrads<S>> {
  static constexpr const char* kName = "interval_norm_relu_moments_bwd";
};

}  // namespace fastbound
