// Compiled once per instruction set.
#include "signed_weight_grad.h"

#include "cpu/run.h"

namespace fastbound::FASTBOUND_CPU_ISA {
namespace {

template <typename S>
void execute(const SignedWeightGrad<S>& pass, double*, int threads) {
  Compute<S>* sum = pass.sum;
  const S *grad = pass.grad, *grad_abs = pass.grad_abs, *weight = pass.weight;
  const int shares = useful_threads(threads, pass.count);
  for_each_share(shares, [&](int share) {
    const Index end = share_begin(pass.count, share + 1, shares);
#pragma omp simd
    for (Index i = share_begin(pass.count, share, shares); i < end; ++i)
      sum[i] = add_signed<Compute<S>>(grad[i], grad_abs[i], weight[i]);
  });
}

}  // namespace

FASTBOUND_RUN_MAPS(SignedWeightGrad)

}  // namespace fastbound::FASTBOUND_CPU_ISA
