// The arithmetic of one element, for CPU and CUDA alike. fastbound/reference/singleprop_norm_relu.py says what it
// means.
#pragma once

#include "portable.h"

namespace fastbound {

// The radius that a variant gives an unstable neuron, and its slopes in value and radius.
struct SinglePropZero {
  template <typename T>
  static FASTBOUND_HD T radius(T value, T radius) {
    return T(0.5) * (value + radius);
  }
  template <typename T>
  static FASTBOUND_HD void slopes(T, T, T& in_value, T& in_radius) {
    in_value = in_radius = T(0.5);
  }
};

struct SinglePropFastLin {
  template <typename T>
  static FASTBOUND_HD T radius(T value, T radius) {
    return T(0.75) * radius + T(0.5) * value - value * value / (T(4) * radius + T(1e-4));
  }
  template <typename T>
  static FASTBOUND_HD void slopes(T value, T radius, T& in_value, T& in_radius) {
    const T ratio = value / (T(4) * radius + T(1e-4));
    in_value = T(0.5) - T(2) * ratio;
    in_radius = T(0.75) + T(4) * ratio * ratio;
  }
};

template <typename Variant>
struct SinglePropRelu {
  // In place. NaN fails every comparison and comes out as NaN.
  template <typename T>
  static FASTBOUND_HD void apply(T& value, T& radius) {
    const bool active = value - radius >= T(0);
    const bool dead = value + radius <= T(0);
    const T mixed = Variant::radius(value, radius);
    radius = active ? radius : (dead ? T(0) : mixed);
    value = value < T(0) ? T(0) : value;
  }

  // (grad_value, grad_radius) in place, at the (value, radius) that entered `apply`. At value == 0 torch's relu has 0.
  template <typename T>
  static FASTBOUND_HD void apply_grad(T& grad_value, T& grad_radius, T value, T radius) {
    const bool active = value - radius >= T(0);
    const bool dead = value + radius <= T(0);
    T in_value, in_radius;
    Variant::slopes(value, radius, in_value, in_radius);
    const T through_radius = active || dead ? T(0) : grad_radius * in_value;
    grad_value = (value > T(0) ? grad_value : T(0)) + through_radius;
    grad_radius = active ? grad_radius : (dead ? T(0) : grad_radius * in_radius);
  }
};

struct SinglePropIdentity {
  template <typename T>
  static FASTBOUND_HD void apply(T&, T&) {}
  template <typename T>
  static FASTBOUND_HD void apply_grad(T&, T&, T, T) {}
};

// The contributions of (grad_value, grad_radius), taken after the activation, to the gradients of scale and shift.
// `magnitude` and `direction` are absolute value and sign of the scale.
template <typename Activation, typename T>
FASTBOUND_HD void singleprop_affine_grad(T grad_value, T grad_radius, T value, T radius, T scale, T magnitude,
                                         T direction, T shift, T& to_scale, T& to_shift) {
  Activation::apply_grad(grad_value, grad_radius, scale * value + shift, magnitude * radius);
  to_scale = grad_value * value + direction * grad_radius * radius;
  to_shift = grad_value;
}

// Calls work(activation) for a code of fastbound/native/singleprop_norm_relu.py: 0 none, 1 zero, 2 fast-lin.
template <typename Work>
FASTBOUND_HOST void with_activation(int code, Work work) {
  if (code == 1)
    work(SinglePropRelu<SinglePropZero>());
  else if (code == 2)
    work(SinglePropRelu<SinglePropFastLin>());
  else
    work(SinglePropIdentity());
}

}  // namespace fastbound
