// The passes, and the arithmetic of one element, for CPU and CUDA alike. fastbound/reference/crown_concretize.py says
// what it means.
#pragma once

#include "pass.h"

namespace fastbound {

template <typename T>
FASTBOUND_HD T concretized(T row, T center, T radius) {
  return row * center - absolute(row) * radius;
}

// The gradient of a coefficient of the row, from the gradient of the sum.
template <typename T>
FASTBOUND_HD T concretized_grad_row(T grad, T row, T center, T radius) {
  return grad * (center - signed_as(row, radius));
}

// Adds one row's terms to the gradients of center and radius.
template <typename T>
FASTBOUND_HD void concretized_grad_box(T grad, T row, T& grad_center, T& grad_radius) {
  grad_center += grad * row;
  grad_radius -= grad * absolute(row);
}

template <typename S>
struct CrownConcretizeFwd : PassOnBoth {
  static constexpr const char* kName = "crown_concretize_fwd";

  Index batch, functions, size;
  const S* rows;             // [B, S, D]
  const S *center, *radius;  // [B, D]
  S* out;                    // [B, S]

  template <typename Fields>
  void fields(Fields& f) {
    f.sizes("batch", batch, "functions", functions, "size", size);
    f.in("rows", rows, {batch, functions, size});
    f.in("center", center, {batch, size});
    f.in("radius", radius, {batch, size});
    f.out("out", out, {batch, functions});
  }
  RowTiles tiles() const { return make_row_tiles(batch, functions, size, kPack<S>); }
  Index workspace() const { return batch * functions * tiles().tiles; }
};

template <typename S>
struct CrownConcretizeBwd : PassOnBoth {
  static constexpr const char* kName = "crown_concretize_bwd";

  Index batch, functions, size;
  const S *grad, *rows;        // [B, S], [B, S, D]
  const S *center, *radius;    // [B, D]
  S* out_rows;                 // [B, S, D] or null
  S *out_center, *out_radius;  // [B, D], or both null

  template <typename Fields>
  void fields(Fields& f) {
    f.sizes("batch", batch, "functions", functions, "size", size);
    f.in("grad", grad, {batch, functions});
    f.in("rows", rows, {batch, functions, size});
    f.in("center", center, {batch, size});
    f.in("radius", radius, {batch, size});
    f.out("out_rows", out_rows, {batch, functions, size}, kOrNull);
    f.out("out_center", out_center, {batch, size}, kOrNull);
    f.out("out_radius", out_radius, {batch, size}, kOrNull);
    f.require((out_center == nullptr) == (out_radius == nullptr), "out_center and out_radius must be given together");
  }
  Sweep sweep() const { return make_sweep({batch, size, 1, 1}, kPack<S>, 1, kAnyBlocks); }
};

}  // namespace fastbound
