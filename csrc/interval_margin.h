// The arithmetic of one element, for CPU and CUDA alike. fastbound/reference/interval_margin.py says what it means.
#pragma once

#include "portable.h"

namespace fastbound {

template <typename T>
FASTBOUND_HD T margin_radius(T label_weight, T other_weight, T radius) {
  return absolute(label_weight - other_weight) * radius;
}

template <typename T>
FASTBOUND_HD T margin_signed(T label_weight, T other_weight, T value) {
  return signed_as(label_weight - other_weight, value);
}

}  // namespace fastbound
