// Compiled once per instruction set.
#include "crown_concretize.h"

#include "cpu/run.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

// Terms are added in T over a block, then in double, so that no error grows with the size of the box.
constexpr Index kBlock = 1024;

template <typename T>
void execute(const CrownConcretizeFwd<T>& pass, double*, int threads) {
  const Index count = pass.batch * pass.functions, size = pass.size;
  const int shares = useful_threads(threads, count * size);
  for_each_share(shares, [&](int share) {
    const Index end = share_begin(count, share + 1, shares);
    for (Index row = share_begin(count, share, shares); row < end; ++row) {
      double sum = 0;
      for (Index first = 0; first < size; first += kBlock) {
        const T* __restrict__ x = pass.rows + row * size + first;
        const T* __restrict__ c = pass.center + row / pass.functions * size + first;
        const T* __restrict__ r = pass.radius + row / pass.functions * size + first;
        const Index length = smaller(kBlock, size - first);
        T total = 0;
#pragma omp simd reduction(+ : total)
        for (Index i = 0; i < length; ++i) total += concretized(x[i], c[i], r[i]);
        sum += static_cast<double>(total);
      }
      pass.out[row] = static_cast<T>(sum);
    }
  });
}

template <bool kRows, bool kBox, typename T>
void backward(const CrownConcretizeBwd<T>& pass, int threads) {
  const Index functions = pass.functions, size = pass.size;
  const int shares = useful_threads(threads, pass.batch * functions * size);
  const Index per_sample = (size + kBlock - 1) / kBlock, items = pass.batch * per_sample;
  for_each_share(shares, [&](int share) {
    for (Index item = share_begin(items, share, shares); item < share_begin(items, share + 1, shares); ++item) {
      const Index sample = item / per_sample, first = item % per_sample * kBlock;
      const Index at = sample * size + first, length = smaller(kBlock, size - first);
      const T* __restrict__ c = pass.center + at;
      const T* __restrict__ r = pass.radius + at;
      T* __restrict__ to_center = kBox ? pass.out_center + at : nullptr;
      T* __restrict__ to_radius = kBox ? pass.out_radius + at : nullptr;
      for (Index i = 0; kBox && i < length; ++i) to_center[i] = to_radius[i] = 0;
      for (Index row = sample * functions; row < (sample + 1) * functions; ++row) {
        const T grad = pass.grad[row];
        const T* __restrict__ x = pass.rows + row * size + first;
        T* __restrict__ out = kRows ? pass.out_rows + row * size + first : nullptr;
#pragma omp simd
        for (Index i = 0; i < length; ++i) {
          if (kRows) out[i] = concretized_grad_row(grad, x[i], c[i], r[i]);
          if (kBox) concretized_grad_box(grad, x[i], to_center[i], to_radius[i]);
        }
      }
    }
  });
}

template <typename T>
void execute(const CrownConcretizeBwd<T>& pass, double*, int threads) {
  if (pass.out_rows == nullptr)
    backward<false, true>(pass, threads);
  else
    pass.out_center == nullptr ? backward<true, false>(pass, threads) : backward<true, true>(pass, threads);
}

}  // namespace

FASTBOUND_RUN_NUMBERS(CrownConcretizeFwd)
FASTBOUND_RUN_NUMBERS(CrownConcretizeBwd)

}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
