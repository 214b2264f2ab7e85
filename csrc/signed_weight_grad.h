// The pass, and the arithmetic of one element, for CPU and CUDA alike.
#pragma once

#include "pass.h"

namespace fastbound {

// grad + sign(weight) * grad_abs with sign(0) = 0: the gradient of a function of (weight, abs(weight)).
template <typename T>
FASTBOUND_HD T add_signed(T grad, T grad_abs, T weight) {
  return grad + signed_as(weight, grad_abs);
}

template <typename S>
struct SignedWeightGrad : PassOnBoth {
  using Cpu = Types<float, double, BFloat16>;
  static constexpr const char* kName = "signed_weight_grad";

  Index count;
  const S *grad, *grad_abs, *weight;  // [n]
  Compute<S>* sum;                    // [n], may be grad

  template <typename Fields>
  void fields(Fields& f) {
    f.sizes("count", count);
    f.in("grad", grad, {count});
    f.in("grad_abs", grad_abs, {count});
    f.in("weight", weight, {count});
    f.out("sum", sum, {count}, kNeeded, grad);
  }
  Sweep sweep() const { return make_sweep({1, count, 1, 1}, kPack<S>, 2, kAnyBlocks); }
};

}  // namespace fastbound
