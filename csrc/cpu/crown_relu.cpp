// Compiled once per instruction set. Bound by memory: the lines of a block of neurons stay in the cache while all rows
// pass over it, so each row is read once and written once.
#include "cpu/crown_relu_cpu.h"
#include "cpu/parallel.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

constexpr Index kBlock = 256;  // the arrays of a block, some 16, fit the innermost cache

// If channels are innermost and a block can hold whole pixels, it does: per-channel numbers are then the same in every
// block.
inline bool whole_pixels(CrownShape shape) { return shape.inner == 1 && shape.channels <= kBlock; }

inline Index block_length(CrownShape shape) {
  return whole_pixels(shape) && shape.channels > 0 ? kBlock / shape.channels * shape.channels : kBlock;
}

// run(i, length, channel, step) for elements first + i ...: the channel is constant (step 0) or rises by one (step 1).
template <typename Run>
__attribute__((always_inline)) inline void channel_runs(CrownShape shape, Index first, Index length, Run run) {
  for (Index i = 0; i < length;) {
    const Index at = first + i, channel = (at / shape.inner) % shape.channels;
    const Index left = shape.inner == 1 ? shape.channels - channel : shape.inner - at % shape.inner;
    const Index stop = smaller(left, length - i);
    run(i, stop, channel, shape.inner == 1 ? Index(1) : Index(0));
    i += stop;
  }
}

template <typename T>
void spread(const T* values /* [C] or null */, T missing, CrownShape shape, Index first, Index length, T* out) {
  if (values == nullptr) {
    for (Index i = 0; i < length; ++i) out[i] = missing;
    return;
  }
  channel_runs(shape, first, length, [&](Index i, Index run, Index channel, Index step) {
    for (Index k = 0; k < run; ++k) out[i + k] = values[channel + k * step];
  });
}

// The lines and channel constants of one block of one sample.
template <typename T>
struct Block {
  T lower[kBlock], upper[kBlock], intercept[kBlock], center[kBlock], radius[kBlock];
  T scale[kBlock], shift[kBlock], offset[kBlock];

  Block(CrownBounds<T> bounds, CrownShape shape) {
    if (whole_pixels(shape)) channels(bounds, shape, 0, block_length(shape));
  }

  void channels(CrownBounds<T> bounds, CrownShape shape, Index first, Index length) {
    spread(bounds.scale, T(1), shape, first, length, scale);
    spread(bounds.shift, T(0), shape, first, length, shift);
    spread(bounds.offset, T(0), shape, first, length, offset);
  }

  void fill(CrownBounds<T> bounds, CrownShape shape, Index sample, Index first, Index length,
            Relaxation<T> relaxation) {
    const T* __restrict__ c = bounds.center + sample * shape.size() + first;
    const T* __restrict__ r = bounds.radius + sample * shape.size() + first;
    if (!whole_pixels(shape)) channels(bounds, shape, first, length);
#pragma omp simd
    for (Index i = 0; i < length; ++i) {
      center[i] = scale[i] * c[i] + shift[i];
      radius[i] = absolute(scale[i]) * r[i];
      const ReluLines<T> lines = relu_lines(center[i], radius[i], relaxation);
      lower[i] = lines.lower;
      upper[i] = lines.upper;
      intercept[i] = lines.intercept;
    }
  }
};

// body(sample, first element, length) for the blocks of one share.
template <typename Body>
void blocks(CrownShape shape, int share, int shares, Body body) {
  const Index length = block_length(shape), per_sample = (shape.size() + length - 1) / length;
  const Index items = shape.batch * per_sample;
  for (Index item = share_begin(items, share, shares); item < share_begin(items, share + 1, shares); ++item) {
    const Index sample = item / per_sample, first = item % per_sample * length;
    body(sample, first, smaller(length, shape.size() - first));
  }
}

template <typename T>
void forward(const T* rows, CrownBounds<T> bounds, T* out, T* bias, double* scratch, CrownShape shape,
             Relaxation<T> relaxation, int threads) {
  const Index size = shape.size(), functions = shape.batch * shape.rows;
  const int shares = useful_threads(threads, functions * size);
  for_each_share(shares, [&](int share) {
    double* sums = scratch + share * functions;
    for (Index i = 0; i < functions; ++i) sums[i] = 0;
    Block<T> block(bounds, shape);
    blocks(shape, share, shares, [&](Index sample, Index first, Index length) {
      block.fill(bounds, shape, sample, first, length, relaxation);
      for (Index row = sample * shape.rows; row < (sample + 1) * shape.rows; ++row) {
        const T* __restrict__ x = rows + row * size + first;
        T* __restrict__ y = out + row * size + first;
        T total = 0;
#pragma omp simd reduction(+ : total)
        for (Index i = 0; i < length; ++i) {
          const ThroughRelu<T> passed =
              through_relu(x[i], block.lower[i], block.upper[i], block.intercept[i], block.scale[i], block.offset[i]);
          y[i] = passed.row;
          total += passed.constant;
        }
        sums[row] += static_cast<double>(total);
      }
    });
  });
  for (Index i = 0; i < functions; ++i) {
    double total = 0;
    for (int share = 0; share < shares; ++share) total += scratch[share * functions + i];
    bias[i] = static_cast<T>(total);
  }
}

// The sums over the rows of one sample, in each element of a block.
template <typename T>
struct Totals {
  T slope[kBlock], intercept[kBlock], scale[kBlock], offset[kBlock];

  void clear(Index length) {
    for (Index i = 0; i < length; ++i) slope[i] = intercept[i] = scale[i] = offset[i] = 0;
  }

  template <bool kRows, bool kScaled>
  void add(const Block<T>& block, const T* __restrict__ grad, T grad_bias, const T* __restrict__ kept,
           T* __restrict__ out, Index length, bool same_slope) {
#pragma omp simd
    for (Index i = 0; i < length; ++i) {
      const T x = kScaled ? kept[i] : row_before_relu(kept[i], block.lower[i], block.upper[i]);
      const ThroughReluGrad<T> passed =
          through_relu_grad(x, kRows ? grad[i] : T(0), grad_bias, block.lower[i], block.upper[i], block.intercept[i],
                            block.scale[i], block.offset[i], same_slope);
      out[i] = passed.row;
      slope[i] += passed.slope;
      intercept[i] += passed.intercept;
      scale[i] += passed.scale;
      offset[i] += passed.offset;
    }
  }
};

// Sums per channel of one share, in double. Blocks of whole pixels add element by element to sums of one block, which
// are folded at the end.
template <typename T>
class ChannelSums {
 public:
  ChannelSums(double* out /* [3, C] */, CrownBounds<T> bounds, CrownShape shape)
      : out_(out), wanted_{bounds.scale != nullptr, bounds.shift != nullptr, bounds.offset != nullptr}, shape_(shape) {
    for (Index i = 0; i < 3 * shape.channels; ++i) out[i] = 0;
    for (auto& sums : block_)
      for (double& sum : sums) sum = 0;
  }

  void add(int which, const T* __restrict__ values, Index first, Index length) {
    if (!wanted_[which]) return;
    if (!whole_pixels(shape_)) return fold(which, values, first, length);
    double* __restrict__ sums = block_[which];
#pragma omp simd
    for (Index i = 0; i < length; ++i) sums[i] += static_cast<double>(values[i]);
  }

  void finish() {
    if (!whole_pixels(shape_)) return;
    for (int which = 0; which < 3; ++which)
      if (wanted_[which]) fold(which, block_[which], 0, block_length(shape_));
  }

 private:
  template <typename Value>
  void fold(int which, const Value* values, Index first, Index length) {
    double* channels = out_ + which * shape_.channels;
    channel_runs(shape_, first, length, [&](Index i, Index run, Index channel, Index step) {
      if (step == 1) {
#pragma omp simd
        for (Index k = 0; k < run; ++k) channels[channel + k] += static_cast<double>(values[i + k]);
        return;
      }
      double total = 0;
#pragma omp simd reduction(+ : total)
      for (Index k = 0; k < run; ++k) total += static_cast<double>(values[i + k]);
      channels[channel] += total;
    });
  }

  double* out_;
  bool wanted_[3];
  CrownShape shape_;
  double block_[3][kBlock];
};

template <bool kScaled, typename T>
void backward_from(const T* grad_rows, const T* grad_bias, const T* kept, CrownBounds<T> bounds, T* out_rows,
                   T* out_center, T* out_radius, T* out_channels, double* scratch, CrownShape shape,
                   Relaxation<T> relaxation, T tiny, int threads) {
  const Index size = shape.size(), channels = shape.channels;
  const int shares = useful_threads(threads, shape.batch * shape.rows * size);
  for_each_share(shares, [&](int share) {
    ChannelSums<T> sums(scratch + share * 3 * channels, bounds, shape);
    Block<T> block(bounds, shape);
    Totals<T> totals;
    blocks(shape, share, shares, [&](Index sample, Index first, Index length) {
      block.fill(bounds, shape, sample, first, length, relaxation);
      totals.clear(length);
      for (Index row = sample * shape.rows; row < (sample + 1) * shape.rows; ++row) {
        const T* known = kept + row * size + first;
        T* y = out_rows + row * size + first;
        const T constant = grad_bias == nullptr ? T(0) : grad_bias[row];
        if (grad_rows != nullptr)
          totals.template add<true, kScaled>(block, grad_rows + row * size + first, constant, known, y, length,
                                             relaxation.same_slope);
        else
          totals.template add<false, kScaled>(block, nullptr, constant, known, y, length, relaxation.same_slope);
      }
      const Index at = sample * size + first;
      const T* __restrict__ c = bounds.center + at;
      const T* __restrict__ r = bounds.radius + at;
      T* __restrict__ to_center = out_center + at;
      T* __restrict__ to_radius = out_radius + at;
#pragma omp simd
      for (Index i = 0; i < length; ++i) {
        T grad_center, grad_radius;
        relu_lines_grad(totals.slope[i], totals.intercept[i], block.center[i], block.radius[i], relaxation.slope, tiny,
                        grad_center, grad_radius);
        const T s = block.scale[i];
        totals.scale[i] += grad_center * c[i] + signed_as(s, grad_radius) * r[i];
        totals.slope[i] = grad_center;
        to_center[i] = s * grad_center;
        to_radius[i] = absolute(s) * grad_radius;
      }
      sums.add(0, totals.scale, first, length);
      sums.add(1, totals.slope, first, length);
      sums.add(2, totals.offset, first, length);
    });
    sums.finish();
  });
  for (Index i = 0; i < 3 * channels; ++i) {
    double total = 0;
    for (int share = 0; share < shares; ++share) total += scratch[share * 3 * channels + i];
    out_channels[i] = static_cast<T>(total);
  }
}

template <typename T>
void backward(const T* grad_rows, const T* grad_bias, const T* kept, CrownBounds<T> bounds, T* out_rows, T* out_center,
              T* out_radius, T* out_channels, double* scratch, CrownShape shape, Relaxation<T> relaxation, T tiny,
              int threads) {
  const auto from = bounds.scale != nullptr ? backward_from<true, T> : backward_from<false, T>;
  from(grad_rows, grad_bias, kept, bounds, out_rows, out_center, out_radius, out_channels, scratch, shape, relaxation,
       tiny, threads);
}

}  // namespace

template <typename T>
CrownRelu<T> crown_relu() {
  return {forward<T>, backward<T>};
}

template CrownRelu<float> crown_relu<float>();
template CrownRelu<double> crown_relu<double>();

}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
