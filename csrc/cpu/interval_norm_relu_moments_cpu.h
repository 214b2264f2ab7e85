// interval_norm_relu with the moments of the bounds that enter the ReLU. Memory order as in interval_norm_relu_cpu.h.
#pragma once

#include <cstdint>

#include "cpu/storage.h"

namespace fastbound {

template <typename S>
struct IntervalNormReluMoments {
  using T = Compute<S>;

  // scratch holds 8 * threads doubles
  void (*forward)(const S* stack,                  // [N, outer, C, inner]
                  const S* radius,                 // [outer, C, inner]
                  const T* scale, const T* shift,  // [C], or both null: no affine map
                  S* out_stack,                    // [N, outer, C, inner]
                  S* out_radius,                   // [outer, C, inner]
                  T* moments,                      // [8]
                  double* scratch, int streams, std::int64_t outer, std::int64_t channels, std::int64_t inner, T slope,
                  int threads);
  // scratch holds 2 * threads * channels doubles
  void (*backward_sums)(const S* grad_stack,                      // [N, outer, C, inner]
                        const S* grad_radius,                     // [outer, C, inner] or null: zero
                        const T* grad_moments, const T* moments,  // [8]
                        const S* stack,                           // [N, outer, C, inner]
                        const S* radius,                          // [outer, C, inner]
                        const T* scale, const T* shift,           // [C]
                        T* sum_scale, T* sum_shift,               // [C]
                        double* scratch, int streams, std::int64_t outer, std::int64_t channels, std::int64_t inner,
                        T slope, int threads);
  void (*backward)(const S* grad_stack,                         // [N, outer, C, inner]
                   const S* grad_radius,                        // [outer, C, inner] or null: zero
                   const T* grad_moments, const T* moments,     // [8]
                   const S* stack,                              // [N, outer, C, inner]
                   const S* radius,                             // [outer, C, inner]
                   const T* scale, const T* shift,              // [C], or both null: no affine map
                   const T* nominal_mul, const T* nominal_add,  // [C], or both null
                   S* out_grad_stack,                           // [N, outer, C, inner]
                   S* out_grad_radius,                          // [outer, C, inner]
                   int streams, std::int64_t outer, std::int64_t channels, std::int64_t inner, T slope, int threads);
};

}  // namespace fastbound
