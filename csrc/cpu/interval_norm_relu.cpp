// Compiled once per instruction set. Everything here is bound by memory, so each pass reads and writes each map once.
#include "interval_norm_relu.h"

#include "cpu/interval_norm_relu_cpu.h"
#include "cpu/map_runs.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

template <typename T>
struct Forward {
  const T *nominal, *center, *radius;  // nominal is null where there is no such stream
  T *out_nominal, *out_center, *out_radius;
  T slope;

  template <bool kNominal, typename Coefficient>
  void run(Index first, Index length, Coefficient scale, Coefficient shift) const {
    const T* __restrict__ x = nominal + (kNominal ? first : 0);
    const T* __restrict__ c = center + first;
    const T* __restrict__ r = radius + first;
    T* __restrict__ y = out_nominal + (kNominal ? first : 0);
    T* __restrict__ yc = out_center + first;
    T* __restrict__ yr = out_radius + first;
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

template <typename T>
void forward(const T* stack, const T* radius, const T* scale, const T* shift, T* out_stack, T* out_radius, int streams,
             Index outer, Index channels, Index inner, T slope, int threads) {
  Shape shape{outer, channels, inner};
  const Index size = shape.size();
  const bool has_nominal = streams == 2;
  const Forward<T> pass{has_nominal ? stack : nullptr,
                        stack + (streams - 1) * size,
                        radius,
                        has_nominal ? out_stack : nullptr,
                        out_stack + (streams - 1) * size,
                        out_radius,
                        slope};
  const int shares = useful_threads(threads, size);
  for_each_share(shares, [&](int share) {
    if (scale == nullptr) {
      const Index first = share_begin(size, share, shares);
      pass(first, share_begin(size, share + 1, shares) - first, Constant<T>{T(1)}, Constant<T>{T(0)});
    } else if (inner == 1) {
      const Repeated<T> scales(scale, channels), shifts(shift, channels);
      row_runs(shape, share, shares,
               [&](Index first, Index length) { pass(first, length, scales.values, shifts.values); });
    } else {
      plane_runs(shape, share, shares, [&](Index first, Index length, Index channel) {
        pass(first, length, Constant<T>{scale[channel]}, Constant<T>{shift[channel]});
      });
    }
  });
}

template <typename T>
struct Backward {
  const T *grad_nominal, *grad_center, *grad_radius;  // the radius one may be null
  const T *nominal, *center, *radius;
  T *out_nominal, *out_center, *out_radius;
  T slope;

  template <bool kNominal, bool kRadius, bool kStatistics, typename Coefficient>
  void run(Index first, Index length, Coefficient scale, Coefficient shift, Coefficient mul, Coefficient add) const {
    const T* __restrict__ g = grad_nominal + (kNominal ? first : 0);
    const T* __restrict__ gc = grad_center + first;
    const T* __restrict__ gr = grad_radius + (kRadius ? first : 0);
    const T* __restrict__ x = nominal + (kNominal ? first : 0);
    const T* __restrict__ c = center + first;
    const T* __restrict__ r = radius + first;
    T* __restrict__ d = out_nominal + (kNominal ? first : 0);
    T* __restrict__ dc = out_center + first;
    T* __restrict__ dr = out_radius + first;
    const T a = slope;
#pragma omp simd
    for (Index i = 0; i < length; ++i) {
      T new_center = gc[i];
      T new_radius = kRadius ? gr[i] : T(0);
      interval_relu_grad(new_center, new_radius, scale[i] * c[i] + shift[i], absolute(scale[i]) * r[i], a);
      dc[i] = scale[i] * new_center;
      dr[i] = absolute(scale[i]) * new_radius;
      if (kNominal) {
        const T gated = scale[i] * leaky_relu_grad(g[i], scale[i] * x[i] + shift[i], a);
        d[i] = kStatistics ? gated + (mul[i] * x[i] + add[i]) : gated;
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

template <typename T>
void backward(const T* grad_stack, const T* grad_radius, const T* stack, const T* radius, const T* scale,
              const T* shift, const T* nominal_mul, const T* nominal_add, T* out_grad_stack, T* out_grad_radius,
              int streams, Index outer, Index channels, Index inner, T slope, int threads) {
  const Shape shape{outer, channels, inner};
  const Index size = shape.size(), last = (streams - 1) * size;
  const bool has_nominal = streams == 2, statistics = nominal_mul != nullptr;
  const Backward<T> pass{has_nominal ? grad_stack : nullptr,
                         grad_stack + last,
                         grad_radius,
                         has_nominal ? stack : nullptr,
                         stack + last,
                         radius,
                         has_nominal ? out_grad_stack : nullptr,
                         out_grad_stack + last,
                         out_grad_radius,
                         slope};
  const int shares = useful_threads(threads, size);
  for_each_share(shares, [&](int share) {
    if (scale == nullptr) {
      const Constant<T> one{T(1)}, zero{T(0)};
      const Index first = share_begin(size, share, shares);
      pass(false, first, share_begin(size, share + 1, shares) - first, one, zero, zero, zero);
    } else if (inner == 1) {
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

// Shifted by the channel's first element, so that a mean far from zero costs no digits of the variance.
// (Chan, Golub, LeVeque: Algorithms for computing the sample variance, 1983.)
template <typename T>
void statistics(const T* x, T* mean, T* var, double* scratch, Index outer, Index channels, Index inner, int threads) {
  const Shape shape{outer, channels, inner};
  const int shares = useful_threads(threads, shape.size());
  const Repeated<T> shifts(inner == 1 ? x : nullptr, channels);
  two_sums<double>(
      shape, scratch, shares, shape.outer,
      [&](Index first, Index length, Index column, double* __restrict__ sums, double* __restrict__ squares) {
        const T* __restrict__ run = x + first;
        const T* __restrict__ shift = shifts.values.values + column;
#pragma omp simd
        for (Index i = 0; i < length; ++i) {
          const double d = static_cast<double>(run[i]) - static_cast<double>(shift[i]);
          sums[i] += d;
          squares[i] += d * d;
        }
      },
      [&](Index first, Index length, Index channel, double& sum, double& square) {
        const T* __restrict__ run = x + first;
        const double shift = x[channel * inner];
        double s = 0, q = 0;
#pragma omp simd reduction(+ : s, q)
        for (Index i = 0; i < length; ++i) {
          const double d = static_cast<double>(run[i]) - shift;
          s += d;
          q += d * d;
        }
        sum += s;
        square += q;
      });
  const double count = static_cast<double>(outer) * static_cast<double>(inner);
  for (Index c = 0; c < channels; ++c) {
    const double offset = scratch[c] / count, spread = scratch[channels + c] / count - offset * offset;
    mean[c] = static_cast<T>(static_cast<double>(x[c * inner]) + offset);
    var[c] = static_cast<T>(spread > 0 || spread != spread ? spread : 0);  // NaN stays NaN
  }
}

template <typename T>
struct Sums {
  const T *grad_nominal, *grad_center, *grad_radius;  // the radius one may be null
  const T *nominal, *center, *radius;
  T slope;

  // The two terms of element i of a run.
  template <bool kNominal, bool kRadius>
  struct Terms {
    const T* __restrict__ g, * __restrict__ gc, * __restrict__ gr, * __restrict__ x, * __restrict__ c, * __restrict__ r;
    T slope;

    Terms(const Sums& of, Index first)
        : g(of.grad_nominal + (kNominal ? first : 0)),
          gc(of.grad_center + first),
          gr(kRadius ? of.grad_radius + first : nullptr),
          x(of.nominal + (kNominal ? first : 0)),
          c(of.center + first),
          r(of.radius + first),
          slope(of.slope) {}
    __attribute__((always_inline)) void operator()(Index i, T scale, T magnitude, T sign, T shift, T& to_scale,
                                                   T& to_shift) const {
      T center_grad = gc[i];
      T radius_grad = kRadius ? gr[i] : T(0);
      interval_relu_grad(center_grad, radius_grad, scale * c[i] + shift, magnitude * r[i], slope);
      to_scale = center_grad * c[i] + sign * radius_grad * r[i];
      to_shift = center_grad;
      if (kNominal) {
        const T nominal_grad = leaky_relu_grad(g[i], scale * x[i] + shift, slope);
        to_scale += nominal_grad * x[i];
        to_shift += nominal_grad;
      }
    }
  };
};

template <typename T, bool kNominal, bool kRadius>
void backward_sums(const Sums<T>& pass, const T* scale, const T* shift, double* scratch, Shape shape, int shares) {
  using Terms = typename Sums<T>::template Terms<kNominal, kRadius>;
  affine_sums(shape, scale, shift, scratch, shares, [&](Index first) { return Terms(pass, first); });
}

template <typename T>
void backward_sums(const T* grad_stack, const T* grad_radius, const T* stack, const T* radius, const T* scale,
                   const T* shift, T* sum_scale, T* sum_shift, double* scratch, int streams, Index outer,
                   Index channels, Index inner, T slope, int threads) {
  const Shape shape{outer, channels, inner};
  const Index last = (streams - 1) * shape.size();
  const int shares = useful_threads(threads, shape.size());
  const Sums<T> pass{grad_stack, grad_stack + last, grad_radius, stack, stack + last, radius, slope};
  if (streams == 2 && grad_radius != nullptr)
    backward_sums<T, true, true>(pass, scale, shift, scratch, shape, shares);
  else if (streams == 2)
    backward_sums<T, true, false>(pass, scale, shift, scratch, shape, shares);
  else if (grad_radius != nullptr)
    backward_sums<T, false, true>(pass, scale, shift, scratch, shape, shares);
  else
    backward_sums<T, false, false>(pass, scale, shift, scratch, shape, shares);
  for (Index c = 0; c < channels; ++c) {
    sum_scale[c] = static_cast<T>(scratch[c]);
    sum_shift[c] = static_cast<T>(scratch[channels + c]);
  }
}

}  // namespace

template <typename T>
IntervalNormRelu<T> interval_norm_relu() {
  return {statistics<T>, forward<T>, backward_sums<T>, backward<T>};
}

template IntervalNormRelu<float> interval_norm_relu<float>();
template IntervalNormRelu<double> interval_norm_relu<double>();

}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
