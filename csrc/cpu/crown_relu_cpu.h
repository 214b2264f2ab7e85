// Memory order of a map: [outer][channels][inner] with inner = 1 (channels innermost) or outer = 1. Rows are
// [B][S][map], bounds [B][map]; scale, shift and offset are [C], each may be null (1, 0, 0).
#pragma once

#include <cstdint>

#include "crown_relu.h"

namespace fastbound {

struct CrownShape {
  std::int64_t batch, rows, outer, channels, inner;
  std::int64_t size() const { return outer * channels * inner; }
};

template <typename T>
struct CrownBounds {
  const T *center, *radius;         // [B, map]
  const T *scale, *shift, *offset;  // [C] or null
};

template <typename T>
struct CrownRelu {
  void (*forward)(const T* rows,  // [B, S, map]
                  CrownBounds<T> bounds,
                  T* out,           // [B, S, map]
                  T* bias,          // [B, S]
                  double* scratch,  // [threads, B, S]
                  CrownShape shape, Relaxation<T> relaxation, int threads);
  void (*backward)(const T* grad_rows,  // [B, S, map] or null: zero
                   const T* grad_bias,  // [B, S] or null: zero
                   const T* kept,       // [B, S, map]: the outgoing rows if there is no scale, else the rows
                   CrownBounds<T> bounds,
                   T* out_rows,                   // [B, S, map]
                   T* out_center, T* out_radius,  // [B, map]
                   T* out_channels,               // [3, C]: gradients of scale, shift, offset
                   double* scratch,               // [threads, 3, C]
                   CrownShape shape, Relaxation<T> relaxation, T tiny, int threads);
};

}  // namespace fastbound
