#pragma once

#include <cstdint>

#include "cpu/storage.h"

namespace fastbound {

template <typename S>
struct SignedWeightGrad {
  void (*add)(Compute<S>* sum,    // [n], may be grad
              const S* grad,      // [n]
              const S* grad_abs,  // [n]
              const S* weight,    // [n]
              std::int64_t n, int threads);
};

}  // namespace fastbound
