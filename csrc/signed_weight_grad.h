// The arithmetic of one element, for CPU and CUDA alike.
#pragma once

#include "portable.h"

namespace fastbound {

// grad + sign(weight) * grad_abs with sign(0) = 0: the gradient of a function of (weight, abs(weight)).
template <typename T>
FASTBOUND_HD T add_signed(T grad, T grad_abs, T weight) {
  return grad + signed_as(weight, grad_abs);
}

}  // namespace fastbound
