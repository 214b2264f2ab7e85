#pragma once

#include <cstdint>

namespace fastbound {

template <typename T>
struct SwapAxes {
  void (*copy)(const T* x,  // [outer, rows, columns]
               T* out,      // [outer, columns, rows]
               std::int64_t outer, std::int64_t rows, std::int64_t columns, int threads);
};

}  // namespace fastbound
