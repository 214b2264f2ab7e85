// Compiled once per instruction set.
#include "crown_concretize.h"

#include "cpu/crown_concretize_cpu.h"
#include "cpu/parallel.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

// Terms are added in T over a block, then in double, so that no error grows with the size of the box.
constexpr Index kBlock = 1024;

template <typename T>
void forward(const T* rows, const T* center, const T* radius, T* out, Index batch, Index functions, Index size,
             int threads) {
  const int shares = useful_threads(threads, batch * functions * size);
  for_each_share(shares, [&](int share) {
    const Index end = share_begin(batch * functions, share + 1, shares);
    for (Index row = share_begin(batch * functions, share, shares); row < end; ++row) {
      double sum = 0;
      for (Index first = 0; first < size; first += kBlock) {
        const T* __restrict__ x = rows + row * size + first;
        const T* __restrict__ c = center + row / functions * size + first;
        const T* __restrict__ r = radius + row / functions * size + first;
        const Index length = smaller(kBlock, size - first);
        T total = 0;
#pragma omp simd reduction(+ : total)
        for (Index i = 0; i < length; ++i) total += concretized(x[i], c[i], r[i]);
        sum += static_cast<double>(total);
      }
      out[row] = static_cast<T>(sum);
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
void backward(const T* grad, const T* rows, const T* center, const T* radius, T* out_rows, T* out_center, T* out_radius,
              Index batch, Index functions, Index size, int threads) {
  const int shares = useful_threads(threads, batch * functions * size);
  const Index per_sample = (size + kBlock - 1) / kBlock, items = batch * per_sample;
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

template <typename T>
CrownConcretize<T> crown_concretize() {
  return {forward<T>, backward<T>};
}

template CrownConcretize<float> crown_concretize<float>();
template CrownConcretize<double> crown_concretize<double>();

}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
