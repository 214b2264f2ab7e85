// Memory order of a map: [outer][channels][inner]. `activation`: 0 none, 1 zero, 2 fast-lin.
#pragma once

#include <cstdint>

#include "cpu/storage.h"

namespace fastbound {

template <typename S>
struct SinglePropNormRelu {
  using T = Compute<S>;

  void (*forward)(const S* nominal, const S* radius,  // [outer, C, inner]
                  const T* scale, const T* shift,     // [C], or both null: no affine map
                  S* out_nominal, S* out_radius,      // [outer, C, inner]
                  std::int64_t outer, std::int64_t channels, std::int64_t inner, int activation, int threads);
  // scratch holds 2 * threads * channels doubles
  void (*backward_sums)(const S* grad_nominal, const S* grad_radius,  // [outer, C, inner]
                        const S* nominal, const S* radius,            // [outer, C, inner]
                        const T* scale, const T* shift,               // [C]
                        T* sum_scale, T* sum_shift,                   // [C]
                        double* scratch, std::int64_t outer, std::int64_t channels, std::int64_t inner, int activation,
                        int threads);
  void (*backward)(const S* grad_nominal, const S* grad_radius,  // [outer, C, inner]
                   const S* nominal, const S* radius,            // [outer, C, inner]
                   const T* scale, const T* shift,               // [C], or both null: no affine map
                   const T* nominal_mul, const T* nominal_add,   // [C], or both null
                   S* out_grad_nominal, S* out_grad_radius,      // [outer, C, inner]
                   std::int64_t outer, std::int64_t channels, std::int64_t inner, int activation, int threads);
};

}  // namespace fastbound
