// The passes, and the arithmetic of one element, for CPU and CUDA alike. fastbound/reference/interval_norm_relu.py says
// what it means.
#pragma once

#include "pass.h"

namespace fastbound {

template <typename T>
FASTBOUND_HD T leaky_relu(T y, T slope) {
  return y >= T(0) ? y : slope * y;
}

// At y == 0 the slope, as torch's relu and leaky_relu have it.
template <typename T>
FASTBOUND_HD T leaky_relu_grad(T grad, T y, T slope) {
  return y > T(0) ? grad : slope * grad;
}

// (center, radius) through a leaky ReLU with 0 <= slope <= 1. NaN fails both comparisons and comes out as NaN.
template <typename T>
FASTBOUND_HD void interval_relu(T& center, T& radius, T slope) {
  const T lower = center - radius;
  const T upper = center + radius;
  const bool active = lower >= T(0);
  const bool dead = upper <= T(0);
  const T below = slope * lower;
  const T mixed_center = T(0.5) * (below + upper);
  const T mixed_radius = T(0.5) * (upper - below);
  const T dead_center = slope * center;
  const T dead_radius = slope * radius;
  center = active ? center : (dead ? dead_center : mixed_center);
  radius = active ? radius : (dead ? dead_radius : mixed_radius);
}

// The gradient of interval_relu: (grad_center, grad_radius) in place, at the (center, radius) that entered it.
template <typename T>
FASTBOUND_HD void interval_relu_grad(T& grad_center, T& grad_radius, T center, T radius, T slope) {
  const bool active = center - radius >= T(0);
  const bool dead = center + radius <= T(0);
  const T grad_lower = T(0.5) * (grad_center - grad_radius) * slope;
  const T grad_upper = T(0.5) * (grad_center + grad_radius);
  const T dead_center = slope * grad_center;
  const T dead_radius = slope * grad_radius;
  const T mixed_center = grad_lower + grad_upper;
  const T mixed_radius = grad_upper - grad_lower;
  grad_center = active ? grad_center : (dead ? dead_center : mixed_center);
  grad_radius = active ? grad_radius : (dead ? dead_radius : mixed_radius);
}

// (center, radius) through scale x + shift and the leaky ReLU.
template <typename T>
FASTBOUND_HD void affine_relu(T& center, T& radius, T scale, T shift, T slope) {
  center = scale * center + shift;
  radius = absolute(scale) * radius;
  interval_relu(center, radius, slope);
}

// Its gradient: (grad_center, grad_radius) in place. `more` adds its terms to the gradients between the two.
template <typename T, typename More>
FASTBOUND_HD void affine_relu_grad(T& grad_center, T& grad_radius, T center, T radius, T scale, T shift, T slope,
                                   const More& more) {
  const T y = scale * center + shift, spread = absolute(scale) * radius;
  interval_relu_grad(grad_center, grad_radius, y, spread, slope);
  more(grad_center, grad_radius, y, spread);
  grad_center = scale * grad_center;
  grad_radius = absolute(scale) * grad_radius;
}

// sign(0) = 0.
template <typename T>
FASTBOUND_HD T sign(T value) {
  return value > T(0) ? T(1) : (value < T(0) ? T(-1) : T(0));
}

// The terms that backward passes add to the gradient of the affine map's output: none, for the plain function.
struct NoMore {
  template <typename T>
  FASTBOUND_HD void operator()(T&, T&, T, T) const {}
};

// The contributions of (grad_center, grad_radius), taken after the ReLU, to the gradients of scale and shift.
// `magnitude` and `direction` are absolute value and sign of the scale.
template <typename T, typename More>
FASTBOUND_HD void affine_relu_terms(T grad_center, T grad_radius, T center, T radius, T scale, T magnitude, T direction,
                                    T shift, T slope, const More& more, T& to_scale, T& to_shift) {
  const T y = scale * center + shift, spread = magnitude * radius;
  interval_relu_grad(grad_center, grad_radius, y, spread, slope);
  more(grad_center, grad_radius, y, spread);
  to_scale = grad_center * center + direction * grad_radius * radius;
  to_shift = grad_center;
}

// The same for the nominal stream, added.
template <typename T>
FASTBOUND_HD void add_nominal_grad(T grad, T nominal, T scale, T shift, T slope, T& to_scale, T& to_shift) {
  const T gated = leaky_relu_grad(grad, scale * nominal + shift, slope);
  to_scale += gated * nominal;
  to_shift += gated;
}

// Moments about the first element of a channel, so that a mean far from zero costs no digits of the variance.
// (Chan, Golub, LeVeque: Algorithms for computing the sample variance, 1983.)
FASTBOUND_HD void add_about(double first, double value, double& sum, double& square) {
  const double d = value - first;
  sum += d;
  square += d * d;
}

FASTBOUND_HD void statistics_of(double sum, double square, double count, double first, double& mean, double& var) {
  const double offset = sum / count, spread = square / count - offset * offset;
  mean = first + offset;
  var = spread > 0 || spread != spread ? spread : 0;  // NaN stays NaN
}

// A stack holds `streams` maps: the center, and before it, if there are two, the nominal one.
template <typename S>
struct PassOnStreams : PassOnMaps {
  using Stored = S;
  using T = Compute<S>;

  Index streams;
  T slope;

  template <typename Fields>
  void sizes(Fields& f) {
    PassOnMaps::sizes(f);
    f.integer("streams", streams, 1, 2);
    f.number("slope", slope, 0, 1);
  }
  template <typename Map>
  FASTBOUND_HD Map* nominal(Map* stack /* [N, outer, C, inner] */) const {  // null if there is none
    return streams == 2 ? stack : nullptr;
  }
  template <typename Map>
  FASTBOUND_HD Map* center(Map* stack /* [N, outer, C, inner] */) const {
    return stack + (streams - 1) * size();
  }
};

template <typename S>
struct NormStatistics : PassOnMaps {
  static constexpr const char* kName = "norm_statistics";

  const S* x;             // [outer, C, inner]
  Compute<S>*mean, *var;  // [C]

  template <typename Fields>
  void fields(Fields& f) {
    sizes(f);
    f.in("x", x, {outer, channels, inner});
    f.out("mean", mean, {channels});
    f.out("var", var, {channels});
    f.require(channels == 0 || (outer > 0 && inner > 0), "wanted at least one value per channel, got none");
  }
  Index scratch(int threads) const { return 2 * channels * threads; }
  Sweep sweep() const { return sums_sweep<S>(*this); }
  Index workspace() const { return 2 * sweep().parts * sweep().period; }
};

template <typename S>
struct IntervalNormReluFwd : PassOnStreams<S> {
  static constexpr const char* kName = "interval_norm_relu_fwd";
  using typename PassOnStreams<S>::T;

  const S *stack, *radius;    // [N, outer, C, inner], [outer, C, inner]
  const T *scale, *shift;     // [C], or both null: no affine map
  S *out_stack, *out_radius;  // [N, outer, C, inner], [outer, C, inner]

  template <typename Fields>
  void fields(Fields& f) {
    this->sizes(f);
    const auto [outer, channels, inner] = static_cast<const ChannelMap&>(*this);
    f.in("stack", stack, {this->streams, outer, channels, inner});
    f.in("radius", radius, {outer, channels, inner});
    f.in("scale", scale, {channels}, kOrNull);
    f.in("shift", shift, {channels}, kOrNull);
    f.out("out_stack", out_stack, {this->streams, outer, channels, inner});
    f.out("out_radius", out_radius, {outer, channels, inner});
    f.require((scale == nullptr) == (shift == nullptr), "scale and shift must be given together");
  }
  Sweep sweep() const { return elementwise_sweep<S>(scale != nullptr, *this); }
};

// What both backward passes read. `more()` gives the terms that they add to the gradients after the ReLU.
template <typename S>
struct IntervalNormReluGrads : PassOnStreams<S> {
  using typename PassOnStreams<S>::T;
  using More = NoMore;

  const S *grad_stack, *grad_radius;  // [N, outer, C, inner]; [outer, C, inner] or null: zero
  const S *stack, *radius;            // [N, outer, C, inner], [outer, C, inner]
  const T *scale, *shift;             // [C], or both null: no affine map

  template <typename Fields>
  void fields(Fields& f) {
    this->sizes(f);
    const auto [outer, channels, inner] = static_cast<const ChannelMap&>(*this);
    f.in("grad_stack", grad_stack, {this->streams, outer, channels, inner});
    f.in("grad_radius", grad_radius, {outer, channels, inner}, kOrNull);
    f.in("stack", stack, {this->streams, outer, channels, inner});
    f.in("radius", radius, {outer, channels, inner});
    f.in("scale", scale, {channels}, kOrNull);
    f.in("shift", shift, {channels}, kOrNull);
    f.require((scale == nullptr) == (shift == nullptr), "scale and shift must be given together");
  }
  FASTBOUND_HD More more() const { return {}; }
};

template <typename S, typename Grads>
struct NormReluBwdSums : Grads {
  using T = Compute<S>;

  T *sum_scale, *sum_shift;  // [C]

  template <typename Fields>
  void fields(Fields& f) {
    Grads::fields(f);
    f.out("sum_scale", sum_scale, {this->channels});
    f.out("sum_shift", sum_shift, {this->channels});
    f.require(this->channels == 0 || this->scale != nullptr, "scale and shift: wanted tensors, got None");
  }
  Index scratch(int threads) const { return 2 * this->channels * threads; }
  Sweep sweep() const { return sums_sweep<S>(*this); }
  Index workspace() const { return 2 * sweep().parts * sweep().period; }
};

template <typename S>
struct IntervalNormReluBwdSums : NormReluBwdSums<S, IntervalNormReluGrads<S>> {
  static constexpr const char* kName = "interval_norm_relu_bwd_sums";
};

// nominal_mul x + nominal_add, for the nominal x, is what batch statistics add to its gradient.
template <typename S, typename Grads>
struct NormReluBwd : Grads {
  using T = Compute<S>;

  const T *nominal_mul, *nominal_add;   // [C], or both null
  S *out_grad_stack, *out_grad_radius;  // [N, outer, C, inner], [outer, C, inner]

  template <typename Fields>
  void fields(Fields& f) {
    Grads::fields(f);
    const auto [outer, channels, inner] = static_cast<const ChannelMap&>(*this);
    f.in("nominal_mul", nominal_mul, {channels}, kOrNull);
    f.in("nominal_add", nominal_add, {channels}, kOrNull);
    f.out("out_grad_stack", out_grad_stack, {this->streams, outer, channels, inner});
    f.out("out_grad_radius", out_grad_radius, {outer, channels, inner});
    f.require((nominal_mul == nullptr) == (nominal_add == nullptr), "nominal_mul and nominal_add come together");
    f.require(nominal_mul == nullptr || (this->scale != nullptr && this->streams == 2),
              "nominal_mul needs scale and a nominal stream");
  }
  Sweep sweep() const { return elementwise_sweep<S>(this->scale != nullptr, *this); }
};

template <typename S>
struct IntervalNormReluBwd : NormReluBwd<S, IntervalNormReluGrads<S>> {
  static constexpr const char* kName = "interval_norm_relu_bwd";
};

}  // namespace fastbound
