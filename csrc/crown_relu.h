// The arithmetic of one element, for CPU and CUDA alike. fastbound/reference/crown_relu.py says what it means.
#pragma once

#include "portable.h"

namespace fastbound {

// The lower line of an unstable neuron has slope 1 if its center exceeds `threshold`, else that of the negative side;
// `same_slope` gives it the slope of the chord instead.
template <typename T>
struct Relaxation {
  T slope;      // on the negative side, in [0, 1]
  T threshold;  // 0: adaptive, infinity: zero, -infinity: one
  bool same_slope;
};

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

}  // namespace fastbound
