// The passes, and the arithmetic of one element, for CPU and CUDA alike. fastbound/reference/crown_relu.py says what it
// means.
#pragma once

#include <cfloat>

#include "pass.h"

namespace fastbound {

// The lower line of an unstable neuron has slope 1 if its center exceeds `threshold`, else that of the negative side;
// `same_slope` gives it the slope of the chord instead.
template <typename T>
struct Relaxation {
  T slope;      // on the negative side, in [0, 1]
  T threshold;  // 0: adaptive, infinity: zero, -infinity: one
  bool same_slope;
};

// The least width of a neuron's bounds by which gradients divide.
template <typename T>
constexpr T kTiny = static_cast<T>(FLT_MIN);
template <>
constexpr double kTiny<double> = DBL_MIN;

template <typename T>
struct ReluLines {
  T lower, upper, intercept;  // slopes of both lines, intercept of the upper one
};

template <typename T>
FASTBOUND_HD ReluLines<T> relu_lines(T center, T radius, Relaxation<T> relaxation) {
  const T a = relaxation.slope, half = (T(1) - a) / T(2);
  const bool active = center >= radius, stable = active || -center >= radius;
  const T fixed = active ? T(1) : a;
  const T quotient = center / (stable ? T(1) : radius);
  const T upper = stable ? fixed : (T(1) + a) / T(2) + half * quotient;
  const T free = relaxation.same_slope ? upper : (center > relaxation.threshold ? T(1) : a);
  return {stable ? fixed : free, upper, stable ? T(0) : half * (radius - center * quotient)};
}

// Numbers go in one by one and results come out by value: a struct of inputs, or a sum by reference, keeps g++ from
// vectorising the loops around these.

template <typename T>
struct ThroughRelu {
  T row, constant;
};

// One coefficient of a row passed back through its neuron, whose input is scale x + shift: the coefficient of x, and
// the term that it adds to the function's constant.
template <typename T>
FASTBOUND_HD ThroughRelu<T> through_relu(T row, T lower, T upper, T intercept, T scale, T offset) {
  const bool negative = row < T(0);
  const T inner = row * (negative ? upper : lower);
  return {inner * scale, (negative ? row * intercept : T(0)) + inner * offset};
}

// The coefficient that became `out` without a scale. If the slope is 0, it is lost, but not needed: the gradients of a
// stable neuron's lines are 0, and that of the row has the slope as its factor.
template <typename T>
FASTBOUND_HD T row_before_relu(T out, T lower, T upper) {
  const T taken = out < T(0) ? upper : lower;
  return out / (taken == T(0) ? T(1) : taken);
}

// The gradient of a coefficient, and its terms in the gradients of the chord's slope and intercept, scale and offset.
template <typename T>
struct ThroughReluGrad {
  T row, slope, intercept, scale, offset;
};

// From the gradients of the passed-back coefficient and of the function's constant.
template <typename T>
FASTBOUND_HD ThroughReluGrad<T> through_relu_grad(T row, T grad_row, T grad_constant, T lower, T upper, T intercept,
                                                  T scale, T offset, bool same_slope) {
  const bool negative = row < T(0);
  const T taken = negative ? upper : lower;
  const T grad_inner = grad_row * scale + grad_constant * offset;
  return {grad_inner * taken + (negative ? grad_constant * intercept : T(0)),
          negative || same_slope ? grad_inner * row : T(0), negative ? grad_constant * row : T(0),
          grad_row * (row * taken), grad_constant * (row * taken)};
}

// From gradients of the chord's slope and intercept to those of center and radius.
template <typename T>
FASTBOUND_HD void relu_lines_grad(T grad_slope, T grad_intercept, T center, T radius, T slope, T tiny, T& grad_center,
                                  T& grad_radius) {
  const bool stable = center >= radius || -center >= radius;
  const T width = stable ? T(1) : (radius > tiny ? radius : tiny);
  const T inverse = T(1) / width, quotient = center * inverse;  // one division: they are most of a backward pass's time
  const T half = (T(1) - slope) / T(2), to_slope = grad_slope * (half * inverse);
  grad_center = stable ? T(0) : to_slope - grad_intercept * (T(2) * half * quotient);
  grad_radius = stable ? T(0) : grad_intercept * (half * (T(1) + quotient * quotient)) - to_slope * quotient;
}

// A map has its channels innermost (inner = 1) or outermost (outer = 1).
template <typename S>
struct PassOnRows : PassOnBoth, ChannelMap {
  using T = Compute<S>;

  Index batch, functions;
  Index relaxation;  // of unstable neurons, below: 0 adaptive, 1 same slope, 2 zero, 3 one
  T slope;
  const S *center, *radius;         // [B, map]
  const T *scale, *shift, *offset;  // [C], or null: 1, 0, 0

  template <typename Fields>
  void sizes(Fields& f) {
    f.sizes("batch", batch, "functions", functions, "outer", outer, "channels", channels, "inner", inner);
    f.number("slope", slope, 0, 1);
    f.integer("relaxation", relaxation, 0, 3);
    f.require(inner == 1 || outer == 1, "a map has its channels innermost (inner = 1) or outermost (outer = 1)");
  }
  template <typename Fields>
  void bounds(Fields& f) {
    f.in("center", center, {batch, outer, channels, inner});
    f.in("radius", radius, {batch, outer, channels, inner});
    f.in("scale", scale, {channels}, kOrNull);
    f.in("shift", shift, {channels}, kOrNull);
    f.in("offset", offset, {channels}, kOrNull);
  }
  FASTBOUND_HD MapShape map() const { return {batch, outer, channels, inner}; }
  FASTBOUND_HD Relaxation<T> lower_line() const {
    const T infinity = static_cast<T>(__builtin_huge_valf());
    return {slope, relaxation == 2 ? infinity : (relaxation == 3 ? -infinity : T(0)), relaxation == 1};
  }
};

template <typename S>
struct CrownReluFwd : PassOnRows<S> {
  static constexpr const char* kName = "crown_relu_fwd";

  const S* rows;       // [B, S, map]
  S *out_rows, *bias;  // [B, S, map], [B, S]

  template <typename Fields>
  void fields(Fields& f) {
    this->sizes(f);
    f.in("rows", rows, {this->batch, this->functions, this->outer, this->channels, this->inner});
    this->bounds(f);
    f.out("out_rows", out_rows, {this->batch, this->functions, this->outer, this->channels, this->inner});
    f.out("bias", bias, {this->batch, this->functions});
  }
  Index scratch(int threads) const { return threads * this->batch * this->functions; }
  RowTiles tiles() const { return make_row_tiles(this->batch, this->functions, this->size(), kPack<S>); }
  Index workspace() const { return this->batch * this->functions * tiles().tiles; }
};

template <typename S>
struct CrownReluBwd : PassOnRows<S> {
  static constexpr const char* kName = "crown_relu_bwd";
  using typename PassOnRows<S>::T;

  const S *grad_rows, *grad_bias;         // [B, S, map] or null: zero; [B, S] or null: zero
  const S* kept;                          // [B, S, map]: the outgoing rows if `reads_output`, else the rows
  S *out_rows, *out_center, *out_radius;  // [B, S, map], [B, map], [B, map]
  T* out_channels;                        // [3, C]: gradients of scale, shift, offset

  template <typename Fields>
  void fields(Fields& f) {
    this->sizes(f);
    const auto [outer, channels, inner] = static_cast<const ChannelMap&>(*this);
    const Index batch = this->batch, functions = this->functions;
    f.in("grad_rows", grad_rows, {batch, functions, outer, channels, inner}, kOrNull);
    f.in("grad_bias", grad_bias, {batch, functions}, kOrNull);
    f.in("kept", kept, {batch, functions, outer, channels, inner});
    this->bounds(f);
    f.out("out_rows", out_rows, {batch, functions, outer, channels, inner});
    f.out("out_center", out_center, {batch, outer, channels, inner});
    f.out("out_radius", out_radius, {batch, outer, channels, inner});
    f.out("out_channels", out_channels, {3, channels});  // not written on a GPU unless `has_vectors`
  }
  // Half precision has rounded the outgoing rows.
  FASTBOUND_HD bool reads_output() const { return this->scale == nullptr && sizeof(S) == sizeof(T); }
  Index scratch(int threads) const { return threads * 3 * this->channels; }
  Sweep sweep() const { return make_sweep(this->map(), kPack<S>, 1, kBlocksOfSums); }
  FASTBOUND_HD bool has_vectors() const {
    return this->scale != nullptr || this->shift != nullptr || this->offset != nullptr;
  }
  Index workspace() const { return has_vectors() ? 3 * sweep().parts * sweep().period : 0; }
};

}  // namespace fastbound
