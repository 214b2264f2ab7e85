// Column i of a [B, K-1] array belongs to the i-th class other than the sample's label, in increasing order.
#pragma once

#include <cstdint>

namespace fastbound {

template <typename T>
struct IntervalMargin {
  void (*forward)(const T* radius,             // [B, D]
                  const T* weight,             // [K, D]
                  const std::int64_t* labels,  // [B]
                  T* out,                      // [B, K-1]
                  std::int64_t batch, std::int64_t features, std::int64_t classes, int threads);
  void (*backward)(const T* grad,               // [B, K-1]
                   const T* radius,             // [B, D]
                   const T* weight,             // [K, D]
                   const std::int64_t* labels,  // [B]
                   T* grad_radius,              // [B, D] or null
                   T* grad_weight,              // [K, D] or null
                   std::int64_t batch, std::int64_t features, std::int64_t classes, int threads);
};

}  // namespace fastbound
