// The passes over sparse rows of full CROWN: row i of a sample is a window [h][w][C] of a map [H][W][C], its corner at
// base[i] * stride + start. Pixels outside the map count as zero, in values as in maps.
#pragma once

#include "crown_concretize.h"
#include "pass.h"

namespace fastbound {

constexpr Index kFar = Index(1) << 31;  // no corner and no step is beyond it: their products do not overflow

struct PassOnWindows : PassOnCpu {
  Index batch, functions, height, width, channels, map_height, map_width;
  Index stride_y, stride_x, start_y, start_x;
  const Index* base;  // [B, S, 2]

  template <typename Fields>
  void sizes(Fields& f) {
    f.sizes("batch", batch, "functions", functions, "height", height, "width", width, "channels", channels,
            "map_height", map_height, "map_width", map_width);
    f.integer("stride_y", stride_y, -kFar, kFar);
    f.integer("stride_x", stride_x, -kFar, kFar);
    f.integer("start_y", start_y, -kFar, kFar);
    f.integer("start_x", start_x, -kFar, kFar);
  }
  FASTBOUND_HD Index count() const { return batch * functions; }
  FASTBOUND_HD Index size() const { return height * width * channels; }
};

template <typename T>
struct CrownWindowsLines : PassOnWindows {
  static constexpr const char* kName = "crown_windows_lines";

  const T* values;                      // [B, S, h, w, C]
  const T *lower_slope, *lower_offset;  // [B, H, W, C], the offset may be null: zero
  const T *upper_slope, *upper_offset;  // [B, H, W, C]
  T *out, *bias;                        // [B, S, h, w, C], [B, S]

  template <typename Fields>
  void fields(Fields& f) {
    sizes(f);
    f.in("values", values, {batch, functions, height, width, channels});
    f.indices("base", base, {batch, functions, 2}, -kFar, kFar);
    f.in("lower_slope", lower_slope, {batch, map_height, map_width, channels});
    f.in("lower_offset", lower_offset, {batch, map_height, map_width, channels}, kOrNull);
    f.in("upper_slope", upper_slope, {batch, map_height, map_width, channels});
    f.in("upper_offset", upper_offset, {batch, map_height, map_width, channels});
    f.out("out", out, {batch, functions, height, width, channels});
    f.out("bias", bias, {batch, functions});
  }
};

template <typename T>
struct CrownWindowsConcretize : PassOnWindows {
  static constexpr const char* kName = "crown_windows_concretize";

  const T* values;           // [B, S, h, w, C]
  const T *center, *radius;  // [B, H, W, C]
  T* out;                    // [B, S]

  template <typename Fields>
  void fields(Fields& f) {
    sizes(f);
    f.in("values", values, {batch, functions, height, width, channels});
    f.indices("base", base, {batch, functions, 2}, -kFar, kFar);
    f.in("center", center, {batch, map_height, map_width, channels});
    f.in("radius", radius, {batch, map_height, map_width, channels});
    f.out("out", out, {batch, functions});
  }
};

// Adds the columns of a transposed convolution up into maps.
template <typename T>
struct CrownWindowsFold : PassOnCpu {
  static constexpr const char* kName = "crown_windows_fold";

  Index count, height, width, kernel_height, kernel_width, channels, map_height, map_width;
  Index stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x;
  const T* columns;  // [R, h, w, kh, kw, C]
  T* out;            // [R, H, W, C]

  template <typename Fields>
  void fields(Fields& f) {
    f.sizes("count", count, "height", height, "width", width, "kernel_height", kernel_height, "kernel_width",
            kernel_width, "channels", channels, "map_height", map_height, "map_width", map_width);
    f.integer("stride_y", stride_y, 1, kFar);
    f.integer("stride_x", stride_x, 1, kFar);
    f.integer("padding_y", padding_y, 0, kFar);
    f.integer("padding_x", padding_x, 0, kFar);
    f.integer("dilation_y", dilation_y, 1, kFar);
    f.integer("dilation_x", dilation_x, 1, kFar);
    f.in("columns", columns, {count, height, width, kernel_height, kernel_width, channels});
    f.out("out", out, {count, map_height, map_width, channels});
  }
};

}  // namespace fastbound
