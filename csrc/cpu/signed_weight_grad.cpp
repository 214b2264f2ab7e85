// Compiled once per instruction set.
#include "signed_weight_grad.h"

#include "cpu/parallel.h"
#include "cpu/signed_weight_grad_cpu.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

template <typename T>
void add(T* grad, const T* grad_abs, const T* weight, Index n, int threads) {
  const int shares = useful_threads(threads, n);
  for_each_share(shares, [&](int share) {
    const Index end = share_begin(n, share + 1, shares);
#pragma omp simd
    for (Index i = share_begin(n, share, shares); i < end; ++i) grad[i] = add_signed(grad[i], grad_abs[i], weight[i]);
  });
}

}  // namespace

template <typename T>
SignedWeightGrad<T> signed_weight_grad() {
  return {add<T>};
}

template SignedWeightGrad<float> signed_weight_grad<float>();
template SignedWeightGrad<double> signed_weight_grad<double>();

}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
