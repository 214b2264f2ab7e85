// Compiled once per instruction set. Everything here is bound by memory, so each pass reads and writes each map once.
#include "cpu/interval_norm_relu_cpu.h"

#include "cpu/parallel.h"
#include "interval_norm_relu.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

// Per-channel numbers along a run of memory: one per element where channels are innermost, one for all where they are not.
template <typename T>
struct Varying {
  const T* values;
  T operator[](Index i) const { return values[i]; }
};

template <typename T>
struct Constant {
  T value;
  T operator[](Index) const { return value; }
};

struct Shape {
  Index outer, channels, inner;
  Index size() const { return outer * channels * inner; }
};

// Rows of few channels are visited several at a time, with the per-channel numbers repeated, so that runs stay long.
constexpr Index kRun = 512;

inline Index rows_per_run(Index channels) { return channels < kRun ? kRun / channels : 1; }

template <typename T>
struct Repeated {
  T buffer[kRun];
  Varying<T> values;
  Repeated(const T* source /* [C] or null */, Index channels) : values{source} {
    const Index rows = rows_per_run(channels);
    if (source == nullptr || rows == 1) return;
    for (Index i = 0; i < rows * channels; ++i) buffer[i] = source[i % channels];
    values.values = buffer;
  }
  Repeated(const Repeated&) = delete;
};

// run(first element, length) over one share of a map whose channels are innermost.
template <typename Run>
void row_runs(Shape shape, int share, int shares, Run run) {
  const Index end = share_begin(shape.outer, share + 1, shares), step = rows_per_run(shape.channels);
  for (Index row = share_begin(shape.outer, share, shares); row < end; row += step)
    run(row * shape.channels, smaller(step, end - row) * shape.channels);
}

// run(first element, length, channel) over one share of a map whose channels are not innermost.
template <typename Run>
void plane_runs(Shape shape, int share, int shares, Run run) {
  const Index end = share_begin(shape.size(), share + 1, shares);
  for (Index i = share_begin(shape.size(), share, shares); i < end;) {
    const Index plane = i / shape.inner, stop = smaller(end, (plane + 1) * shape.inner);
    run(i, stop - i, plane % shape.channels);
    i = stop;
  }
}

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
  const Forward<T> pass{has_nominal ? stack : nullptr,     stack + (streams - 1) * size,     radius,
                        has_nominal ? out_stack : nullptr, out_stack + (streams - 1) * size, out_radius,
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
  const Backward<T> pass{has_nominal ? grad_stack : nullptr,     grad_stack + last,     grad_radius,
                         has_nominal ? stack : nullptr,          stack + last,          radius,
                         has_nominal ? out_grad_stack : nullptr, out_grad_stack + last, out_grad_radius,
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

// Two sums per channel. Terms are formed in T and summed in double: at no cost of speed (the pass waits for memory), and
// with no error that grows with the size of the map. Shares have their own sums, added in the order of the shares.
template <typename T, typename Rows, typename Plane>
void two_sums(Shape shape, double* scratch /* [shares, 2, C] */, int shares, Rows rows, Plane plane) {
  const Index channels = shape.channels;
  for_each_share(shares, [&](int share) {
    double* first_sums = scratch + 2 * channels * share;
    double* second_sums = first_sums + channels;
    for (Index i = 0; i < 2 * channels; ++i) first_sums[i] = 0;
    if (shape.inner == 1) {
      const Index repeats = rows_per_run(channels);
      if (repeats == 1) {
        rows(share, first_sums, second_sums);
      } else {
        double wide_first[kRun], wide_second[kRun];
        for (Index i = 0; i < kRun; ++i) wide_first[i] = wide_second[i] = 0;
        rows(share, wide_first, wide_second);
        for (Index repeat = 0; repeat < repeats; ++repeat)
          for (Index c = 0; c < channels; ++c) {
            first_sums[c] += wide_first[repeat * channels + c];
            second_sums[c] += wide_second[repeat * channels + c];
          }
      }
    } else {
      plane_runs(shape, share, shares, [&](Index first, Index length, Index channel) {
        plane(first, length, channel, first_sums[channel], second_sums[channel]);
      });
    }
  });
  for (int share = 1; share < shares; ++share)
    for (Index i = 0; i < 2 * channels; ++i) scratch[i] += scratch[2 * channels * share + i];
}

// Shifted by the channel's first element, so that a mean far from zero costs no digits of the variance.
// (Chan, Golub, LeVeque: Algorithms for computing the sample variance, 1983.)
template <typename T>
void statistics(const T* x, T* mean, T* var, double* scratch, Index outer, Index channels, Index inner, int threads) {
  const Shape shape{outer, channels, inner};
  const int shares = useful_threads(threads, shape.size());
  two_sums<T>(
      shape, scratch, shares,
      [&](int share, double* __restrict__ sums, double* __restrict__ squares) {
        const Repeated<T> shifts(x, channels);
        row_runs(shape, share, shares, [&](Index first, Index length) {
          const T* __restrict__ run = x + first;
          const T* __restrict__ shift = shifts.values.values;
#pragma omp simd
          for (Index i = 0; i < length; ++i) {
            const double d = static_cast<double>(run[i]) - static_cast<double>(shift[i]);
            sums[i] += d;
            squares[i] += d * d;
          }
        });
      },
      [&](Index first, Index length, Index channel, double& sum, double& square) {
        const double shift = x[channel * inner];
        double s = 0, q = 0;
#pragma omp simd reduction(+ : s, q)
        for (Index i = 0; i < length; ++i) {
          const double d = static_cast<double>(x[first + i]) - shift;
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

  // The two terms of element i.
  template <bool kNominal, bool kRadius>
  __attribute__((always_inline)) void terms(Index i, T scale, T shift, T& to_scale, T& to_shift) const {
    T gc = grad_center[i];
    T gr = kRadius ? grad_radius[i] : T(0);
    interval_relu_grad(gc, gr, scale * center[i] + shift, absolute(scale) * radius[i], slope);
    to_scale = gc * center[i] + times_sign(gr, scale) * radius[i];
    to_shift = gc;
    if (kNominal) {
      const T g = leaky_relu_grad(grad_nominal[i], scale * nominal[i] + shift, slope);
      to_scale += g * nominal[i];
      to_shift += g;
    }
  }
};

template <typename T, bool kNominal, bool kRadius>
void backward_sums(Sums<T> pass, const T* scale, const T* shift, double* scratch, Shape shape, int shares) {
  two_sums<T>(
      shape, scratch, shares,
      [&](int share, double* __restrict__ scale_sums, double* __restrict__ shift_sums) {
        const Repeated<T> scales(scale, shape.channels), shifts(shift, shape.channels);
        const T* __restrict__ s = scales.values.values;
        const T* __restrict__ b = shifts.values.values;
        const Sums<T> local = pass;
        row_runs(shape, share, shares, [&](Index first, Index length) {
#pragma omp simd
          for (Index i = 0; i < length; ++i) {
            T to_scale, to_shift;
            local.template terms<kNominal, kRadius>(first + i, s[i], b[i], to_scale, to_shift);
            scale_sums[i] += static_cast<double>(to_scale);
            shift_sums[i] += static_cast<double>(to_shift);
          }
        });
      },
      [&](Index first, Index length, Index channel, double& scale_sum, double& shift_sum) {
        const T s = scale[channel], b = shift[channel];
        const Sums<T> local = pass;
        double p = 0, q = 0;
#pragma omp simd reduction(+ : p, q)
        for (Index i = first; i < first + length; ++i) {
          T to_scale, to_shift;
          local.template terms<kNominal, kRadius>(i, s, b, to_scale, to_shift);
          p += static_cast<double>(to_scale);
          q += static_cast<double>(to_shift);
        }
        scale_sum += p;
        shift_sum += q;
      });
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
