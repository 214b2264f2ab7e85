// Compiled once per instruction set. Everything here is bound by memory, so each pass reads and writes each map once.
#include "singleprop_norm_relu.h"

#include "cpu/map_runs.h"
#include "cpu/singleprop_norm_relu_cpu.h"
#include "cpu/storage.h"
#include "interval_norm_relu.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

template <typename S>
struct Forward {
  using T = Compute<S>;
  const S *nominal, *radius;
  S *out_nominal, *out_radius;

  template <typename Activation, typename Coefficient>
  void run(Activation, Index first, Index length, Coefficient scale, Coefficient shift) const {
    const S* __restrict__ x = nominal + first;
    const S* __restrict__ r = radius + first;
    S* __restrict__ y = out_nominal + first;
    S* __restrict__ yr = out_radius + first;
#pragma omp simd
    for (Index i = 0; i < length; ++i) {
      T value = scale[i] * x[i] + shift[i];
      T spread = absolute(scale[i]) * r[i];
      Activation::apply(value, spread);
      y[i] = value;
      yr[i] = spread;
    }
  }
};

template <typename S, typename T>
void forward(const S* nominal, const S* radius, const T* scale, const T* shift, S* out_nominal, S* out_radius,
             Index outer, Index channels, Index inner, int activation, int threads) {
  const Shape shape{outer, channels, inner};
  const Forward<S> pass{nominal, radius, out_nominal, out_radius};
  with_activation(activation, [&](auto function) {
    affine_runs(shape, scale, shift, useful_threads(threads, shape.size()),
                [&](int, Index first, Index length, auto s, auto b) { pass.run(function, first, length, s, b); });
  });
}

template <typename S>
struct Backward {
  using T = Compute<S>;
  const S *grad_nominal, *grad_radius, *nominal, *radius;
  S *out_nominal, *out_radius;

  template <bool kStatistics, typename Activation, typename Coefficient>
  void run(Activation, Index first, Index length, Coefficient scale, Coefficient shift, Coefficient mul,
           Coefficient add) const {
    const S* __restrict__ g = grad_nominal + first;
    const S* __restrict__ gr = grad_radius + first;
    const S* __restrict__ x = nominal + first;
    const S* __restrict__ r = radius + first;
    S* __restrict__ d = out_nominal + first;
    S* __restrict__ dr = out_radius + first;
#pragma omp simd
    for (Index i = 0; i < length; ++i) {
      T value_grad = g[i], radius_grad = gr[i];
      const T magnitude = absolute(scale[i]);
      Activation::apply_grad(value_grad, radius_grad, scale[i] * x[i] + shift[i], magnitude * r[i]);
      d[i] = kStatistics ? scale[i] * value_grad + (mul[i] * x[i] + add[i]) : scale[i] * value_grad;
      dr[i] = magnitude * radius_grad;
    }
  }
};

template <bool kStatistics, typename Activation, typename S, typename T>
void backward(Activation function, const Backward<S>& pass, const T* scale, const T* shift, const T* nominal_mul,
              const T* nominal_add, Shape shape, int threads) {
  const int shares = useful_threads(threads, shape.size());
  for_each_share(shares, [&](int share) {
    const Constant<T> one{T(1)}, zero{T(0)};
    if (scale == nullptr) {
      const Index first = share_begin(shape.size(), share, shares);
      const Index length = share_begin(shape.size(), share + 1, shares) - first;
      pass.template run<false>(function, first, length, one, zero, zero, zero);
    } else if (shape.inner == 1) {
      const Index channels = shape.channels;
      const Repeated<T> scales(scale, channels), shifts(shift, channels), muls(nominal_mul, channels),
          adds(nominal_add, channels);
      row_runs(shape, share, shares, [&](Index first, Index length) {
        pass.template run<kStatistics>(function, first, length, scales.values, shifts.values, muls.values, adds.values);
      });
    } else {
      plane_runs(shape, share, shares, [&](Index first, Index length, Index channel) {
        const Constant<T> mul{kStatistics ? nominal_mul[channel] : T(0)},
            add{kStatistics ? nominal_add[channel] : T(0)};
        pass.template run<kStatistics>(function, first, length, Constant<T>{scale[channel]},
                                       Constant<T>{shift[channel]}, mul, add);
      });
    }
  });
}

template <typename S, typename T>
void backward(const S* grad_nominal, const S* grad_radius, const S* nominal, const S* radius, const T* scale,
              const T* shift, const T* nominal_mul, const T* nominal_add, S* out_grad_nominal, S* out_grad_radius,
              Index outer, Index channels, Index inner, int activation, int threads) {
  const Shape shape{outer, channels, inner};
  const Backward<S> pass{grad_nominal, grad_radius, nominal, radius, out_grad_nominal, out_grad_radius};
  with_activation(activation, [&](auto function) {
    if (nominal_mul != nullptr)
      backward<true>(function, pass, scale, shift, nominal_mul, nominal_add, shape, threads);
    else
      backward<false>(function, pass, scale, shift, nominal_mul, nominal_add, shape, threads);
  });
}

// The two terms of element i of a run.
template <typename Activation, typename S>
struct Terms {
  using T = Compute<S>;
  const S* __restrict__ g, * __restrict__ gr, * __restrict__ x, * __restrict__ r;

  __attribute__((always_inline)) void operator()(Index i, T scale, T magnitude, T sign, T shift, T& to_scale,
                                                 T& to_shift) const {
    singleprop_affine_grad<Activation, T>(g[i], gr[i], x[i], r[i], scale, magnitude, sign, shift, to_scale, to_shift);
  }
};

template <typename S, typename T>
void backward_sums(const S* grad_nominal, const S* grad_radius, const S* nominal, const S* radius, const T* scale,
                   const T* shift, T* sum_scale, T* sum_shift, double* scratch, Index outer, Index channels,
                   Index inner, int activation, int threads) {
  const Shape shape{outer, channels, inner};
  const int shares = useful_threads(threads, shape.size());
  with_activation(activation, [&](auto function) {
    const auto terms = [&](Index first) {
      return Terms<decltype(function), S>{grad_nominal + first, grad_radius + first, nominal + first, radius + first};
    };
    affine_sums(shape, scale, shift, scratch, shares, terms);
  });
  for (Index c = 0; c < channels; ++c) {
    sum_scale[c] = static_cast<T>(scratch[c]);
    sum_shift[c] = static_cast<T>(scratch[channels + c]);
  }
}

}  // namespace

template <typename S>
SinglePropNormRelu<S> singleprop_norm_relu() {
  return {forward<S>, backward_sums<S>, backward<S>};
}

template SinglePropNormRelu<float> singleprop_norm_relu<float>();
template SinglePropNormRelu<double> singleprop_norm_relu<double>();
template SinglePropNormRelu<BFloat16> singleprop_norm_relu<BFloat16>();

}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
