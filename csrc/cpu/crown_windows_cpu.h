// Sparse rows of full CROWN: row i is a window [h][w][C] of a map [H][W][C] of sample i / S, its corner at
// base[i] * stride + start. Pixels outside the map count as zero, in values as in maps.
#pragma once

#include <cstdint>

namespace fastbound {

struct Windows {
  const std::int64_t* base;  // [R, 2]
  std::int64_t count, per_sample, height, width, channels, map_height, map_width;
  std::int64_t stride[2], start[2];
};

struct Fold {
  std::int64_t count, height, width, kernel_height, kernel_width, channels, map_height, map_width;
  std::int64_t stride[2], padding[2], dilation[2];
};

template <typename T>
struct CrownWindows {
  void (*lines)(const T* values,                              // [R, h, w, C]
                const T* lower_slope, const T* lower_offset,  // [B, H, W, C], the offset may be null: zero
                const T* upper_slope, const T* upper_offset,  // [B, H, W, C]
                T* out,                                       // [R, h, w, C]
                T* bias,                                      // [R]
                Windows windows, int threads);
  void (*concretize)(const T* values,                   // [R, h, w, C]
                     const T* center, const T* radius,  // [B, H, W, C]
                     T* out,                            // [R]
                     Windows windows, int threads);
  // Adds the columns of a transposed convolution up into maps.
  void (*fold)(const T* columns,  // [R, h, w, kh, kw, C]
               T* out,            // [R, H, W, C]
               Fold fold, int threads);
};

}  // namespace fastbound
