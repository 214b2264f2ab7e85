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

template <typename T, bool kRows, bool kBox>
void backward_block(const T* __restrict__ x, T grad, const T* __restrict__ c, const T* __restrict__ r,
                    T* __restrict__ out, T* __restrict__ to_center, T* __restrict__ to_radius, Index length) {
#pragma omp simd
  for (Index i = 0; i < length; ++i) {
    if (kRows) out[i] = concretized_grad_row(grad, x[i], c[i], r[i]);
    if (kBox) concretized_grad_box(grad, x[i], to_center[i], to_radius[i]);
  }
}

template <typename T>
void execute(const CrownConcretizeBwd<T>& pass, double*, int threads) {
  const T *grad = pass.grad, *rows = pass.rows, *center = pass.center, *radius = pass.radius;
  T *out_rows = pass.out_rows, *out_center = pass.out_center, *out_radius = pass.out_radius;
  const Index functions = pass.functions, size = pass.size;
  const int shares = useful_threads(threads, pass.batch * functions * size);
  const Index per_sample = (size + kBlock - 1) / kBlock, items = pass.batch * per_sample;
  for_each_share(shares, [&](int share) {
    for (Index item = share_begin(items, share, shares); item < share_begin(items, share + 1, shares); ++item) {
      const Index sample = item / per_sample, first = item % per_sample * kBlock;
      const Index at = sample * size + first, length = smaller(kBlock, size - first);
      if (out_center != nullptr)
        for (Index i = 0; i < length; ++i) out_center[at + i] = out_radius[at + i] = 0;
      for (Index row = sample * functions; row < (sample + 1) * functions; ++row) {
        const Index begin = row * size + first;
        if (out_rows == nullptr)
          backward_block<T, false, true>(rows + begin, grad[row], center + at, radius + at, nullptr, out_center + at,
                                         out_radius + at, length);
        else if (out_center == nullptr)
          backward_block<T, true, false>(rows + begin, grad[row], center + at, radius + at, out_rows + begin, nullptr,
                                         nullptr, length);
        else
          backward_block<T, true, true>(rows + begin, grad[row], center + at, radius + at, out_rows + begin,
                                        out_center + at, out_radius + at, length);
      }
    }
  });
}

}  // namespace

FASTBOUND_RUN_NUMBERS(CrownConcretizeFwd)
FASTBOUND_RUN_NUMBERS(CrownConcretizeBwd)

}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
