// Memory order of a map: [outer][channels][inner]. `activation`: 0 none, 1 zero, 2 fast-lin.
#pragma once

#include <cstdint>

namespace fastbound {

template <typename T>
struct SinglePropNormRelu {
  void (*forward)(const T* nominal, const T* radius,  // [outer, C, inner]
                  const T* scale, const T* shift,     // [C], or both null: no affine map
                  T* out_nominal, T* out_radius,      // [outer, C, inner]
                  std::int64_t outer, std::int64_t channels, std::int64_t inner, int activation, int threads);
  // scratch holds 2 * threads * channels doubles
  void (*backward_sums)(const T* grad_nominal, const T* grad_radius,  // [outer, C, inner]
                        const T* nominal, const T* radius,            // [outer, C, inner]
                        const T* scale, const T* shift,               // [C]
                        T* sum_scale, T* sum_shift,                   // [C]
                        double* scratch, std::int64_t outer, std::int64_t channels, std::int64_t inner, int activation,
                        int threads);
  void (*backward)(const T* grad_nominal, const T* grad_radius,  // [outer, C, inner]
                   const T* nominal, const T* radius,            // [outer, C, inner]
                   const T* scale, const T* shift,               // [C], or both null: no affine map
                   const T* nominal_mul, const T* nominal_add,   // [C], or both null
                   T* out_grad_nominal, T* out_grad_radius,      // [outer, C, inner]
                   std::int64_t outer, std::int64_t channels, std::int64_t inner, int activation, int threads);
};

}  // namespace fastbound
