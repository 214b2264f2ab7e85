#pragma once

#include <cstdint>

namespace fastbound {

template <typename T>
struct SignedWeightGrad {
  void (*add)(T* grad,            // [n], read and written
              const T* grad_abs,  // [n]
              const T* weight,    // [n]
              std::int64_t n, int threads);
};

}  // namespace fastbound
