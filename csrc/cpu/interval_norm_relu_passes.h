// The passes of interval_norm_relu over all streams, for every table that consists of them. Each pass reads and writes
// each map only once, because it is bound by memory.
#pragma once

#include "cpu/map_runs.h"
#include "cpu/storage.h"
#include "interval_norm_relu.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

template <typename S>
struct Forward {
  using T = Compute<S>;
  const S *nominal, *center, *radius;  // nominal is null if there is no such stream
  S *out_nominal, *out_center, *out_radius;
  T slope;

  template <bool kNominal, typename Coefficient>
  void run(Index first, Index length, Coefficient scale, Coefficient shift) const {
    const S* __restrict__ x = nominal + (kNominal ? first : 0);
    const S* __restrict__ c = center + first;
    const S* __restrict__ r = radius + first;
    S* __restrict__ y = out_nominal + (kNominal ? first : 0);
    S* __restrict__ yc = out_center + first;
    S* __restrict__ yr = out_radius + first;
    const T a = slope;
#pragma omp simd
    for (Index i = 0; i < length; ++i) {
      T new_center = scale[i] * c[i] + shift[i];
      T new_radius = absolute(scale[i]) * r[i];
      interval_relu(new_center, new_radius, a);
      yc[i] = new_center;
      yr[i] = new_radius;
      if (kNominal) y[i] = leaky_relu(scale[i] * x[i] + shift[i], a);
    }
  }

  template <typename Coefficient>
  void operator()(Index first, Index length, Coefficient scale, Coefficient shift) const {
    if (nominal != nullptr)
      run<true>(first, length, scale, shift);
    else
      run<false>(first, length, scale, shift);
  }
};

template <typename S>
Forward<S> forward_of(const S* stack, const S* radius, S* out_stack, S* out_radius, int streams, Shape shape,
                      Compute<S> slope) {
  const bool has_nominal = streams == 2;
  const Index center = (streams - 1) * shape.size();
  return {has_nominal ? stack : nullptr,
          stack + center,
          radius,
          has_nominal ? out_stack : nullptr,
          out_stack + center,
          out_radius,
          slope};
}

template <typename S, typename More>
struct Backward {
  using T = Compute<S>;
  const S *grad_nominal, *grad_center, *grad_radius;  // the radius one may be null
  const S *nominal, *center, *radius;
  S *out_nominal, *out_center, *out_radius;
  T slope;
  More more;

  template <bool kNominal, bool kRadius, bool kStatistics, typename Coefficient>
  void run(Index first, Index length, Coefficient scale, Coefficient shift, Coefficient mul, Coefficient add) const {
    const S* __restrict__ g = grad_nominal + (kNominal ? first : 0);
    const S* __restrict__ gc = grad_center + first;
    const S* __restrict__ gr = grad_radius + (kRadius ? first : 0);
    const S* __restrict__ x = nominal + (kNominal ? first : 0);
    const S* __restrict__ c = center + first;
    const S* __restrict__ r = radius + first;
    S* __restrict__ d = out_nominal + (kNominal ? first : 0);
    S* __restrict__ dc = out_center + first;
    S* __restrict__ dr = out_radius + first;
    const T a = slope;
    const More add_more = more;
#pragma omp simd
    for (Index i = 0; i < length; ++i) {
      T new_center = gc[i];
      T new_radius = kRadius ? T(gr[i]) : T(0);
      const T y = scale[i] * c[i] + shift[i], spread = absolute(scale[i]) * r[i];
      interval_relu_grad(new_center, new_radius, y, spread, a);
      add_more(new_center, new_radius, y, spread);
      dc[i] = scale[i] * new_center;
      dr[i] = absolute(scale[i]) * new_radius;
      if (kNominal) {
        const T value = x[i];
        const T gated = scale[i] * leaky_relu_grad<T>(g[i], scale[i] * value + shift[i], a);
        d[i] = kStatistics ? gated + (mul[i] * value + add[i]) : gated;
      }
    }
  }

  template <bool kNominal, bool kStatistics, typename Coefficient>
  void pick(Index first, Index length, Coefficient scale, Coefficient shift, Coefficient mul, Coefficient add) const {
    if (grad_radius != nullptr)
      run<kNominal, true, kStatistics>(first, length, scale, shift, mul, add);
    else
      run<kNominal, false, kStatistics>(first, length, scale, shift, mul, add);
  }

  template <typename Coefficient>
  void operator()(bool statistics, Index first, Index length, Coefficient scale, Coefficient shift, Coefficient mul,
                  Coefficient add) const {
    if (nominal == nullptr)
      pick<false, false>(first, length, scale, shift, mul, add);
    else if (statistics)
      pick<true, true>(first, length, scale, shift, mul, add);
    else
      pick<true, false>(first, length, scale, shift, mul, add);
  }
};

template <typename S, typename T, typename More>
void backward_pass(const S* grad_stack, const S* grad_radius, const S* stack, const S* radius, const T* scale,
                   const T* shift, const T* nominal_mul, const T* nominal_add, S* out_grad_stack, S* out_grad_radius,
                   int streams, Shape shape, T slope, int threads, More more) {
  const Index size = shape.size(), channels = shape.channels, last = (streams - 1) * size;
  const bool has_nominal = streams == 2, statistics = nominal_mul != nullptr;
  const Backward<S, More> pass{has_nominal ? grad_stack : nullptr,
                               grad_stack + last,
                               grad_radius,
                               has_nominal ? stack : nullptr,
                               stack + last,
                               radius,
                               has_nominal ? out_grad_stack : nullptr,
                               out_grad_stack + last,
                               out_grad_radius,
                               slope,
                               more};
  const int shares = useful_threads(threads, size);
  for_each_share(shares, [&](int share) {
    if (scale == nullptr) {
      const Constant<T> one{T(1)}, zero{T(0)};
      const Index first = share_begin(size, share, shares);
      pass(false, first, share_begin(size, share + 1, shares) - first, one, zero, zero, zero);
    } else if (shape.inner == 1) {
      const Repeated<T> scales(scale, channels), shifts(shift, channels), muls(nominal_mul, channels),
          adds(nominal_add, channels);
      row_runs(shape, share, shares, [&](Index first, Index length) {
        pass(statistics, first, length, scales.values, shifts.values, muls.values, adds.values);
      });
    } else {
      plane_runs(shape, share, shares, [&](Index first, Index length, Index channel) {
        const Constant<T> mul{statistics ? nominal_mul[channel] : T(0)}, add{statistics ? nominal_add[channel] : T(0)};
        pass(statistics, first, length, Constant<T>{scale[channel]}, Constant<T>{shift[channel]}, mul, add);
      });
    }
  });
}

template <typename S, typename More>
struct Sums {
  using T = Compute<S>;
  const S *grad_nominal, *grad_center, *grad_radius;  // the radius one may be null
  const S *nominal, *center, *radius;
  T slope;
  More more;

  // The two terms of element i of a run.
  template <bool kNominal, bool kRadius>
  struct Terms {
    const S* __restrict__ g, * __restrict__ gc, * __restrict__ gr, * __restrict__ x, * __restrict__ c, * __restrict__ r;
    T slope;
    More more;

    Terms(const Sums& of, Index first)
        : g(of.grad_nominal + (kNominal ? first : 0)),
          gc(of.grad_center + first),
          gr(kRadius ? of.grad_radius + first : nullptr),
          x(of.nominal + (kNominal ? first : 0)),
          c(of.center + first),
          r(of.radius + first),
          slope(of.slope),
          more(of.more) {}
    __attribute__((always_inline)) void operator()(Index i, T scale, T magnitude, T sign, T shift, T& to_scale,
                                                   T& to_shift) const {
      affine_grad<T>(gc[i], kRadius ? T(gr[i]) : T(0), c[i], r[i], scale, magnitude, sign, shift, slope, more, to_scale,
                     to_shift);
      if (kNominal) add_nominal_grad<T>(g[i], x[i], scale, shift, slope, to_scale, to_shift);
    }
  };
};

template <bool kNominal, bool kRadius, typename S, typename More>
void backward_sums_pass(const Sums<S, More>& pass, const Compute<S>* scale, const Compute<S>* shift, double* scratch,
                        Shape shape, int shares) {
  using Terms = typename Sums<S, More>::template Terms<kNominal, kRadius>;
  affine_sums(shape, scale, shift, scratch, shares, [&](Index first) { return Terms(pass, first); });
}

template <typename S, typename T, typename More>
void backward_sums_pass(const S* grad_stack, const S* grad_radius, const S* stack, const S* radius, const T* scale,
                        const T* shift, T* sum_scale, T* sum_shift, double* scratch, int streams, Shape shape, T slope,
                        int threads, More more) {
  const Index last = (streams - 1) * shape.size();
  const int shares = useful_threads(threads, shape.size());
  const Sums<S, More> pass{grad_stack, grad_stack + last, grad_radius, stack, stack + last, radius, slope, more};
  if (streams == 2 && grad_radius != nullptr)
    backward_sums_pass<true, true>(pass, scale, shift, scratch, shape, shares);
  else if (streams == 2)
    backward_sums_pass<true, false>(pass, scale, shift, scratch, shape, shares);
  else if (grad_radius != nullptr)
    backward_sums_pass<false, true>(pass, scale, shift, scratch, shape, shares);
  else
    backward_sums_pass<false, false>(pass, scale, shift, scratch, shape, shares);
  for (Index c = 0; c < shape.channels; ++c) {
    sum_scale[c] = static_cast<T>(scratch[c]);
    sum_shift[c] = static_cast<T>(scratch[shape.channels + c]);
  }
}

}  // namespace
}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
