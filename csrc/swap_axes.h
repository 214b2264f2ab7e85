// The pass that copies channels_last maps to NCHW and back. On a GPU torch's own copy runs at memory speed.
#pragma once

#include "pass.h"

namespace fastbound {

template <typename S>
struct SwapAxes : PassOnCpu {
  static constexpr const char* kName = "swap_axes";

  Index outer, rows, columns;
  const S* x;  // [outer, rows, columns]
  S* out;      // [outer, columns, rows]

  template <typename Fields>
  void fields(Fields& f) {
    f.sizes("outer", outer, "rows", rows, "columns", columns);
    f.in("x", x, {outer, rows, columns});
    f.out("out", out, {outer, columns, rows});
  }
};

}  // namespace fastbound
