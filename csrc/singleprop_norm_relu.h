// The passes, and the arithmetic of one element, for CPU and CUDA alike. fastbound/reference/singleprop_norm_relu.py
// says what it means.
#pragma once

#include "interval_norm_relu.h"

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

// (value, radius) through scale x + shift and the activation, and its gradient: both in place.
template <typename Activation, typename T>
FASTBOUND_HD void singleprop_affine(T& value, T& radius, T scale, T shift) {
  value = scale * value + shift;
  radius = absolute(scale) * radius;
  Activation::apply(value, radius);
}
template <typename Activation, typename T>
FASTBOUND_HD void singleprop_affine_grad(T& grad_value, T& grad_radius, T value, T radius, T scale, T shift) {
  const T magnitude = absolute(scale);
  Activation::apply_grad(grad_value, grad_radius, scale * value + shift, magnitude * radius);
  grad_value = scale * grad_value;
  grad_radius = magnitude * grad_radius;
}

// The contributions of (grad_value, grad_radius), taken after the activation, to the gradients of scale and shift.
// `magnitude` and `direction` are absolute value and sign of the scale.
template <typename Activation, typename T>
FASTBOUND_HD void singleprop_terms(T grad_value, T grad_radius, T value, T radius, T scale, T magnitude, T direction,
                                   T shift, T& to_scale, T& to_shift) {
  Activation::apply_grad(grad_value, grad_radius, scale * value + shift, magnitude * radius);
  to_scale = grad_value * value + direction * grad_radius * radius;
  to_shift = grad_value;
}

// Calls work(activation) for a code of fastbound/native/singleprop_norm_relu.py: 0 none, 1 zero, 2 fast-lin.
template <typename Work>
FASTBOUND_HOST void with_activation(Index code, Work work) {
  if (code == 1)
    work(SinglePropRelu<SinglePropZero>());
  else if (code == 2)
    work(SinglePropRelu<SinglePropFastLin>());
  else
    work(SinglePropIdentity());
}

// `activation`: 0 none, 1 zero, 2 fast-lin.
template <typename S>
struct SinglePropNormReluFwd : PassOnMaps {
  static constexpr const char* kName = "singleprop_norm_relu_fwd";

  Index activation;
  const S *nominal, *radius;       // [outer, C, inner]
  const Compute<S>*scale, *shift;  // [C], or both null: no affine map
  S *out_nominal, *out_radius;     // [outer, C, inner]

  template <typename Fields>
  void fields(Fields& f) {
    sizes(f);
    f.integer("activation", activation, 0, 2);
    f.in("nominal", nominal, {outer, channels, inner});
    f.in("radius", radius, {outer, channels, inner});
    f.in("scale", scale, {channels}, kOrNull);
    f.in("shift", shift, {channels}, kOrNull);
    f.out("out_nominal", out_nominal, {outer, channels, inner});
    f.out("out_radius", out_radius, {outer, channels, inner});
    f.require((scale == nullptr) == (shift == nullptr), "scale and shift must be given together");
  }
  Sweep sweep() const { return elementwise_sweep<S>(scale != nullptr, *this); }
};

// What both backward passes read.
template <typename S>
struct SinglePropNormReluGrads : PassOnMaps {
  using T = Compute<S>;

  Index activation;
  const S *grad_nominal, *grad_radius;  // [outer, C, inner]
  const S *nominal, *radius;            // [outer, C, inner]
  const Compute<S>*scale, *shift;       // [C], or both null: no affine map

  template <typename Fields>
  void fields(Fields& f) {
    sizes(f);
    f.integer("activation", activation, 0, 2);
    f.in("grad_nominal", grad_nominal, {outer, channels, inner});
    f.in("grad_radius", grad_radius, {outer, channels, inner});
    f.in("nominal", nominal, {outer, channels, inner});
    f.in("radius", radius, {outer, channels, inner});
    f.in("scale", scale, {channels}, kOrNull);
    f.in("shift", shift, {channels}, kOrNull);
    f.require((scale == nullptr) == (shift == nullptr), "scale and shift must be given together");
  }
};

template <typename S>
struct SinglePropNormReluBwdSums : NormReluBwdSums<S, SinglePropNormReluGrads<S>> {
  static constexpr const char* kName = "singleprop_norm_relu_bwd_sums";
};

template <typename S>
struct SinglePropNormReluBwd : SinglePropNormReluGrads<S> {
  static constexpr const char* kName = "singleprop_norm_relu_bwd";

  const Compute<S>*nominal_mul, *nominal_add;  // [C], or both null
  S *out_grad_nominal, *out_grad_radius;       // [outer, C, inner]

  template <typename Fields>
  void fields(Fields& f) {
    SinglePropNormReluGrads<S>::fields(f);
    const auto [outer, channels, inner] = static_cast<const ChannelMap&>(*this);
    f.in("nominal_mul", nominal_mul, {channels}, kOrNull);
    f.in("nominal_add", nominal_add, {channels}, kOrNull);
    f.out("out_grad_nominal", out_grad_nominal, {outer, channels, inner});
    f.out("out_grad_radius", out_grad_radius, {outer, channels, inner});
    f.require((nominal_mul == nullptr) == (nominal_add == nullptr), "nominal_mul and nominal_add come together");
    f.require(nominal_mul == nullptr || this->scale != nullptr, "nominal_mul needs scale");
  }
  Sweep sweep() const { return elementwise_sweep<S>(this->scale != nullptr, *this); }
};

}  // namespace fastbound
