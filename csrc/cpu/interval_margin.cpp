// Compiled once per instruction set.
#include "interval_margin.h"

#include "cpu/interval_margin_cpu.h"
#include "cpu/parallel.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

template <typename T>
T margin(const T* __restrict__ label_row, const T* __restrict__ other_row, const T* __restrict__ radius,
         Index features) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (Index d = 0; d < features; ++d) sum += margin_radius(label_row[d], other_row[d], radius[d]);
  return sum;
}

template <typename T>
void forward(const T* radius, const T* weight, const Index* labels, T* out, Index batch, Index features, Index classes,
             int threads) {
  const int shares = useful_threads(threads, batch * (classes - 1) * features);
  for_each_share(shares, [&](int share) {
    const Index end = share_begin(batch, share + 1, shares);
    for (Index b = share_begin(batch, share, shares); b < end; ++b) {
      const Index label = labels[b];
      for (Index i = 0; i < classes - 1; ++i)
        out[b * (classes - 1) + i] =
            margin(weight + label * features, weight + (i + (i >= label)) * features, radius + b * features, features);
    }
  });
}

// Shares own features, not samples: every sum runs over all samples in order, whatever the number of threads.
constexpr Index kBlock = 256;

template <typename T>
void backward_block(const T* grad, const T* radius, const T* weight, const Index* labels, T* grad_radius,
                    T* grad_weight, Index batch, Index features, Index classes, Index first, Index width) {
  T radius_sum[kBlock], label_sum[kBlock];
  if (grad_weight != nullptr)
    for (Index k = 0; k < classes; ++k)
      for (Index d = 0; d < width; ++d) grad_weight[k * features + first + d] = 0;
  for (Index b = 0; b < batch; ++b) {
    const Index label = labels[b];
    const T* __restrict__ label_row = weight + label * features + first;
    const T* __restrict__ r = radius + b * features + first;
    for (Index d = 0; d < width; ++d) radius_sum[d] = label_sum[d] = 0;
    for (Index i = 0; i < classes - 1; ++i) {
      const Index other = i + (i >= label);
      const T g = grad[b * (classes - 1) + i];
      const T* __restrict__ other_row = weight + other * features + first;
      if (grad_radius != nullptr) {
#pragma omp simd
        for (Index d = 0; d < width; ++d) radius_sum[d] += margin_radius(label_row[d], other_row[d], g);
      }
      if (grad_weight != nullptr) {
        T* __restrict__ other_sum = grad_weight + other * features + first;
#pragma omp simd
        for (Index d = 0; d < width; ++d) {
          const T term = margin_signed(label_row[d], other_row[d], g * r[d]);
          label_sum[d] += term;
          other_sum[d] -= term;
        }
      }
    }
    if (grad_radius != nullptr)
      for (Index d = 0; d < width; ++d) grad_radius[b * features + first + d] = radius_sum[d];
    if (grad_weight != nullptr)
      for (Index d = 0; d < width; ++d) grad_weight[label * features + first + d] += label_sum[d];
  }
}

template <typename T>
void backward(const T* grad, const T* radius, const T* weight, const Index* labels, T* grad_radius, T* grad_weight,
              Index batch, Index features, Index classes, int threads) {
  const int shares =
      static_cast<int>(smaller(useful_threads(threads, batch * (classes - 1) * features), (features + 15) / 16));
  for_each_share(shares, [&](int share) {
    const Index end = share_begin(features, share + 1, shares);
    for (Index first = share_begin(features, share, shares); first < end; first += kBlock)
      backward_block(grad, radius, weight, labels, grad_radius, grad_weight, batch, features, classes, first,
                     smaller(kBlock, end - first));
  });
}

}  // namespace

template <typename T>
IntervalMargin<T> interval_margin() {
  return {forward<T>, backward<T>};
}

template IntervalMargin<float> interval_margin<float>();
template IntervalMargin<double> interval_margin<double>();

}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
