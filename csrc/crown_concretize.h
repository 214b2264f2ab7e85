// The arithmetic of one element, for CPU and CUDA alike. fastbound/reference/crown_concretize.py says what it means.
#pragma once

#include "portable.h"

namespace fastbound {

template <typename T>
FASTBOUND_HD T concretized(T row, T center, T radius) {
  return row * center - absolute(row) * radius;
}

// The gradient of a coefficient of the row, from the gradient of the sum.
template <typename T>
FASTBOUND_HD T concretized_grad_row(T grad, T row, T center, T radius) {
  return grad * (center - signed_as(row, radius));
}

// Adds one row's terms to the gradients of center and radius.
template <typename T>
FASTBOUND_HD void concretized_grad_box(T grad, T row, T& grad_center, T& grad_radius) {
  grad_center += grad * row;
  grad_radius -= grad * absolute(row);
}

}  // namespace fastbound
