// The arithmetic of one element, for CPU and CUDA alike. fastbound/reference/interval_norm_relu.py says what it means.
#pragma once

#include "portable.h"

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
FASTBOUND_HD void affine_grad(T grad_center, T grad_radius, T center, T radius, T scale, T magnitude, T direction,
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

}  // namespace fastbound
