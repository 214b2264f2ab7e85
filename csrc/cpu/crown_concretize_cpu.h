#pragma once

#include <cstdint>

namespace fastbound {

template <typename T>
struct CrownConcretize {
  void (*forward)(const T* rows,                     // [B, S, D]
                  const T* center, const T* radius,  // [B, D]
                  T* out,                            // [B, S]
                  std::int64_t batch, std::int64_t functions, std::int64_t size, int threads);
  void (*backward)(const T* grad,                     // [B, S]
                   const T* rows,                     // [B, S, D]
                   const T* center, const T* radius,  // [B, D]
                   T* out_rows,                       // [B, S, D] or null
                   T* out_center, T* out_radius,      // [B, D], both or neither
                   std::int64_t batch, std::int64_t functions, std::int64_t size, int threads);
};

}  // namespace fastbound
