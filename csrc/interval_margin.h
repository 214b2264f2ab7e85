// The arithmetic of one element, for CPU and CUDA alike. fastbound/reference/interval_margin.py says what it means.
#pragma once

#include "portable.h"

namespace fastbound {

template <typename T>
FASTBOUND_HD T margin_radius(T label_weight, T other_weight, T radius) {
  const T difference = label_weight - other_weight;
  return (difference < T(0) ? -difference : difference) * radius;
}

// sign(label_weight - other_weight) * value, with sign(0) = 0.
template <typename T>
FASTBOUND_HD T margin_signed(T label_weight, T other_weight, T value) {
  const T difference = label_weight - other_weight;
  return difference > T(0) ? value : (difference < T(0) ? -value : T(0));
}

}  // namespace fastbound
