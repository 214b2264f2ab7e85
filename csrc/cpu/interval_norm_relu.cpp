// Compiled once per instruction set.
#include "cpu/interval_norm_relu_cpu.h"
#include "cpu/interval_norm_relu_passes.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

template <typename S, typename T>
void statistics(const S* x, T* mean, T* var, double* scratch, Index outer, Index channels, Index inner, int threads) {
  const Shape shape{outer, channels, inner};
  const int shares = useful_threads(threads, shape.size());
  const Repeated<S> shifts(inner == 1 ? x : nullptr, channels);
  two_sums<double>(
      shape, scratch, shares, shape.outer,
      [&](Index first, Index length, Index column, double* __restrict__ sums, double* __restrict__ squares) {
        const S* __restrict__ run = x + first;
        const S* __restrict__ shift = shifts.values.values + column;
#pragma omp simd
        for (Index i = 0; i < length; ++i) add_about(shift[i], run[i], sums[i], squares[i]);
      },
      [&](Index first, Index length, Index channel, double& sum, double& square) {
        const S* __restrict__ run = x + first;
        const double shift = x[channel * inner];
        double s = 0, q = 0;
#pragma omp simd reduction(+ : s, q)
        for (Index i = 0; i < length; ++i) add_about(shift, run[i], s, q);
        sum += s;
        square += q;
      });
  const double count = static_cast<double>(outer) * static_cast<double>(inner);
  for (Index c = 0; c < channels; ++c) {
    double exact_mean, exact_var;
    statistics_of(scratch[c], scratch[channels + c], count, x[c * inner], exact_mean, exact_var);
    mean[c] = static_cast<T>(exact_mean);
    var[c] = static_cast<T>(exact_var);
  }
}

template <typename S, typename T>
void forward(const S* stack, const S* radius, const T* scale, const T* shift, S* out_stack, S* out_radius, int streams,
             Index outer, Index channels, Index inner, T slope, int threads) {
  const Shape shape{outer, channels, inner};
  const Forward<S> pass = forward_of(stack, radius, out_stack, out_radius, streams, shape, slope);
  affine_runs(shape, scale, shift, useful_threads(threads, shape.size()),
              [&](int, Index first, Index length, auto a, auto b) { pass(first, length, a, b); });
}

template <typename S, typename T>
void backward_sums(const S* grad_stack, const S* grad_radius, const S* stack, const S* radius, const T* scale,
                   const T* shift, T* sum_scale, T* sum_shift, double* scratch, int streams, Index outer,
                   Index channels, Index inner, T slope, int threads) {
  backward_sums_pass(grad_stack, grad_radius, stack, radius, scale, shift, sum_scale, sum_shift, scratch, streams,
                     Shape{outer, channels, inner}, slope, threads, NoMore());
}

template <typename S, typename T>
void backward(const S* grad_stack, const S* grad_radius, const S* stack, const S* radius, const T* scale,
              const T* shift, const T* nominal_mul, const T* nominal_add, S* out_grad_stack, S* out_grad_radius,
              int streams, Index outer, Index channels, Index inner, T slope, int threads) {
  backward_pass(grad_stack, grad_radius, stack, radius, scale, shift, nominal_mul, nominal_add, out_grad_stack,
                out_grad_radius, streams, Shape{outer, channels, inner}, slope, threads, NoMore());
}

}  // namespace

template <typename S>
IntervalNormRelu<S> interval_norm_relu() {
  return {statistics<S>, forward<S>, backward_sums<S>, backward<S>};
}

template IntervalNormRelu<float> interval_norm_relu<float>();
template IntervalNormRelu<double> interval_norm_relu<double>();
template IntervalNormRelu<BFloat16> interval_norm_relu<BFloat16>();

}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
