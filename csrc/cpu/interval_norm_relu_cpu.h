// Memory order of a map: [outer][channels][inner]; a stack is `streams` maps, the nominal one (if any) first.
#pragma once

#include <cstdint>

#include "cpu/storage.h"

namespace fastbound {

template <typename S>
struct IntervalNormRelu {
  using T = Compute<S>;

  // scratch holds 2 * threads * channels doubles
  void (*statistics)(const S* x,       // [outer, C, inner]
                     T* mean, T* var,  // [C]
                     double* scratch, std::int64_t outer, std::int64_t channels, std::int64_t inner, int threads);
  void (*forward)(const S* stack,                  // [N, outer, C, inner]
                  const S* radius,                 // [outer, C, inner]
                  const T* scale, const T* shift,  // [C], or both null: no affine map
                  S* out_stack,                    // [N, outer, C, inner]
                  S* out_radius,                   // [outer, C, inner]
                  int streams, std::int64_t outer, std::int64_t channels, std::int64_t inner, T slope, int threads);
  // scratch holds 2 * threads * channels doubles
  void (*backward_sums)(const S* grad_stack,             // [N, outer, C, inner]
                        const S* grad_radius,            // [outer, C, inner] or null: zero
                        const S* stack,                  // [N, outer, C, inner]
                        const S* radius,                 // [outer, C, inner]
                        const T* scale, const T* shift,  // [C]
                        T* sum_scale, T* sum_shift,      // [C]
                        double* scratch, int streams, std::int64_t outer, std::int64_t channels, std::int64_t inner,
                        T slope, int threads);
  void (*backward)(const S* grad_stack,                         // [N, outer, C, inner]
                   const S* grad_radius,                        // [outer, C, inner] or null: zero
                   const S* stack,                              // [N, outer, C, inner]
                   const S* radius,                             // [outer, C, inner]
                   const T* scale, const T* shift,              // [C], or both null: no affine map
                   const T* nominal_mul, const T* nominal_add,  // [C], or both null
                   S* out_grad_stack,                           // [N, outer, C, inner]
                   S* out_grad_radius,                          // [outer, C, inner]
                   int streams, std::int64_t outer, std::int64_t channels, std::int64_t inner, T slope, int threads);
};

}  // namespace fastbound
