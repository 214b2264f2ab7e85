// Compiled once per instruction set.
#include "interval_margin.h"

#include "cpu/run.h"

namespace fastbound::FASTBOUND_CPU_ISA {
namespace {

template <typename T>
constexpr T kNone = static_cast<T>(__builtin_nanf(""));

template <typename T>
T margin(const T* __restrict__ label_row, const T* __restrict__ other_row, const T* __restrict__ radius,
         Index features) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (Index d = 0; d < features; ++d) sum += margin_radius(label_row[d], other_row[d], radius[d]);
  return sum;
}

template <typename T>
void execute(const IntervalMarginFwd<T>& pass, double*, int threads) {
  const Index batch = pass.batch, features = pass.features, classes = pass.classes;
  const int shares = useful_threads(threads, batch * (classes - 1) * features);
  for_each_share(shares, [&](int share) {
    const Index end = share_begin(batch, share + 1, shares);
    for (Index b = share_begin(batch, share, shares); b < end; ++b) {
      const Index label = pass.labels[b];
      for (Index i = 0; !valid(label, classes) && i < classes - 1; ++i) pass.out[b * (classes - 1) + i] = kNone<T>;
      for (Index i = 0; valid(label, classes) && i < classes - 1; ++i)
        pass.out[b * (classes - 1) + i] =
            margin(pass.weight + label * features, pass.weight + (i + (i >= label)) * features,
                   pass.radius + b * features, features);
    }
  });
}

// Shares own features, not samples: every sum runs over all samples in order, whatever the number of threads.
constexpr Index kBlock = 256;

template <typename T>
void backward_block(const IntervalMarginBwd<T>& pass, Index first, Index width) {
  const T *grad = pass.grad, *weight = pass.weight;
  T *grad_radius = pass.grad_radius, *grad_weight = pass.grad_weight;
  const Index features = pass.features, classes = pass.classes;
  T radius_sum[kBlock], label_sum[kBlock];
  if (grad_weight != nullptr)
    for (Index k = 0; k < classes; ++k)
      for (Index d = 0; d < width; ++d) grad_weight[k * features + first + d] = 0;
  for (Index b = 0; b < pass.batch; ++b) {
    const Index label = pass.labels[b];
    if (!valid(label, classes)) {
      for (Index d = 0; grad_radius != nullptr && d < width; ++d) grad_radius[b * features + first + d] = kNone<T>;
      continue;
    }
    const T* __restrict__ label_row = weight + label * features + first;
    const T* __restrict__ r = pass.radius + b * features + first;
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
void execute(const IntervalMarginBwd<T>& pass, double*, int threads) {
  const Index features = pass.features, work = pass.batch * (pass.classes - 1) * features;
  const int shares = static_cast<int>(smaller(useful_threads(threads, work), (features + 15) / 16));
  for_each_share(shares, [&](int share) {
    const Index end = share_begin(features, share + 1, shares);
    for (Index first = share_begin(features, share, shares); first < end; first += kBlock)
      backward_block(pass, first, smaller(kBlock, end - first));
  });
}

}  // namespace

FASTBOUND_RUN_NUMBERS(IntervalMarginFwd)
FASTBOUND_RUN_NUMBERS(IntervalMarginBwd)

}  // namespace fastbound::FASTBOUND_CPU_ISA
