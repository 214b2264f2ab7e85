// Compiled once per instruction set.
#include "signed_weight_grad.h"

#include "cpu/parallel.h"
#include "cpu/signed_weight_grad_cpu.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

template <typename S, typename T>
void add(T* sum, const S* grad, const S* grad_abs, const S* weight, Index n, int threads) {
  const int shares = useful_threads(threads, n);
  for_each_share(shares, [&](int share) {
    const Index end = share_begin(n, share + 1, shares);
#pragma omp simd
    for (Index i = share_begin(n, share, shares); i < end; ++i) sum[i] = add_signed<T>(grad[i], grad_abs[i], weight[i]);
  });
}

}  // namespace

template <typename S>
SignedWeightGrad<S> signed_weight_grad() {
  return {add<S>};
}

template SignedWeightGrad<float> signed_weight_grad<float>();
template SignedWeightGrad<double> signed_weight_grad<double>();
template SignedWeightGrad<BFloat16> signed_weight_grad<BFloat16>();

}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
