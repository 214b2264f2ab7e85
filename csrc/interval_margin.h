// The passes, and the arithmetic of one element, for CPU and CUDA alike. fastbound/reference/interval_margin.py says
// what it means.
#pragma once

#include "pass.h"

namespace fastbound {

template <typename T>
FASTBOUND_HD T margin_radius(T label_weight, T other_weight, T radius) {
  return absolute(label_weight - other_weight) * radius;
}

template <typename T>
FASTBOUND_HD T margin_signed(T label_weight, T other_weight, T value) {
  return signed_as(label_weight - other_weight, value);
}

// Whether a label names a class: checked beforehand on a CPU, but another thread may change it during the call.
FASTBOUND_HD bool valid(Index label, Index classes) { return label >= 0 && label < classes; }

// Column i of a [B, K-1] tensor belongs to the i-th class other than the sample's label, in increasing order. A GPU's
// labels are not read before the launch: one outside [0, K) makes everything that depends on its sample NaN.
template <typename S>
struct IntervalMarginFwd : PassOnBoth {
  static constexpr const char* kName = "interval_margin_fwd";

  Index batch, features, classes;
  const S *radius, *weight;  // [B, D], [K, D]
  const Index* labels;       // [B]
  S* out;                    // [B, K-1]

  template <typename Fields>
  void fields(Fields& f) {
    f.sizes("batch", batch, "features", features);
    f.integer("classes", classes, 1, INT64_MAX);
    f.in("radius", radius, {batch, features});
    f.in("weight", weight, {classes, features});
    f.indices("labels", labels, {batch}, 0, classes);
    f.out("out", out, {batch, classes - 1});
  }
};

template <typename S>
struct IntervalMarginBwd : PassOnBoth {
  static constexpr const char* kName = "interval_margin_bwd";
  static constexpr Index kSamples = 16;  // whose terms of grad_weight one block of a GPU adds up

  Index batch, features, classes;
  const S *grad, *radius, *weight;  // [B, K-1], [B, D], [K, D]
  const Index* labels;              // [B]
  S *grad_radius, *grad_weight;     // [B, D] or null, [K, D] or null

  template <typename Fields>
  void fields(Fields& f) {
    f.sizes("batch", batch, "features", features);
    f.integer("classes", classes, 1, INT64_MAX);
    f.in("grad", grad, {batch, classes - 1});
    f.in("radius", radius, {batch, features});
    f.in("weight", weight, {classes, features});
    f.indices("labels", labels, {batch}, 0, classes);
    f.out("grad_radius", grad_radius, {batch, features}, kOrNull);
    f.out("grad_weight", grad_weight, {classes, features}, kOrNull);
  }
  FASTBOUND_HD Index parts() const { return ceil_div(batch, kSamples); }
  Index workspace() const { return grad_weight == nullptr ? 0 : parts() * classes * features; }
};

}  // namespace fastbound
