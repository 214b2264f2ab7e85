// Compiled once per instruction set. Bound by memory: the lines of a block of neurons stay in the cache while all rows
// pass over it, so each row is read once and written once.
#include "crown_relu.h"

#include "cpu/run.h"

namespace fastbound::FASTBOUND_CPU_ISA {
namespace {

constexpr Index kBlock = 256;  // the arrays of a block, some 16, fit the innermost cache

// If channels are innermost and a block can hold whole pixels, it does: per-channel numbers are then the same in every
// block.
inline bool whole_pixels(ChannelMap shape) { return shape.inner == 1 && shape.channels <= kBlock; }

inline Index block_length(ChannelMap shape) {
  return whole_pixels(shape) && shape.channels > 0 ? kBlock / shape.channels * shape.channels : kBlock;
}

// run(i, length, channel, step) for elements first + i ...: the channel is constant (step 0) or rises by one (step 1).
template <typename Run>
__attribute__((always_inline)) inline void channel_runs(ChannelMap shape, Index first, Index length, Run run) {
  for (Index i = 0; i < length;) {
    const Index at = first + i, channel = (at / shape.inner) % shape.channels;
    const Index left = shape.inner == 1 ? shape.channels - channel : shape.inner - at % shape.inner;
    const Index stop = smaller(left, length - i);
    run(i, stop, channel, shape.inner == 1 ? Index(1) : Index(0));
    i += stop;
  }
}

template <typename T>
void spread(const T* values /* [C] or null */, T missing, ChannelMap shape, Index first, Index length, T* out) {
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

  explicit Block(const PassOnRows<T>& pass) {
    if (whole_pixels(pass)) channels(pass, 0, block_length(pass));
  }

  void channels(const PassOnRows<T>& pass, Index first, Index length) {
    spread(pass.scale, T(1), pass, first, length, scale);
    spread(pass.shift, T(0), pass, first, length, shift);
    spread(pass.offset, T(0), pass, first, length, offset);
  }

  void fill(const PassOnRows<T>& pass, Relaxation<T> relaxation, Index sample, Index first, Index length) {
    const T* __restrict__ c = pass.center + sample * pass.size() + first;
    const T* __restrict__ r = pass.radius + sample * pass.size() + first;
    if (!whole_pixels(pass)) channels(pass, first, length);
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
template <typename T, typename Body>
void blocks(const PassOnRows<T>& pass, int share, int shares, Body body) {
  const Index length = block_length(pass), per_sample = (pass.size() + length - 1) / length;
  const Index items = pass.batch * per_sample;
  for (Index item = share_begin(items, share, shares); item < share_begin(items, share + 1, shares); ++item) {
    const Index sample = item / per_sample, first = item % per_sample * length;
    body(sample, first, smaller(length, pass.size() - first));
  }
}

template <typename T>
void execute(const CrownReluFwd<T>& pass, double* scratch, int threads) {
  const Relaxation<T> relaxation = pass.lower_line();
  const Index size = pass.size(), functions = pass.batch * pass.functions;
  const int shares = useful_threads(threads, functions * size);
  for_each_share(shares, [&](int share) {
    double* sums = scratch + share * functions;
    for (Index i = 0; i < functions; ++i) sums[i] = 0;
    Block<T> block(pass);
    blocks(pass, share, shares, [&](Index sample, Index first, Index length) {
      block.fill(pass, relaxation, sample, first, length);
      for (Index row = sample * pass.functions; row < (sample + 1) * pass.functions; ++row) {
        const T* __restrict__ x = pass.rows + row * size + first;
        T* __restrict__ y = pass.out_rows + row * size + first;
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
    pass.bias[i] = static_cast<T>(total);
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
  ChannelSums(double* out /* [3, C] */, const PassOnRows<T>& pass)
      : out_(out), wanted_{pass.scale != nullptr, pass.shift != nullptr, pass.offset != nullptr}, shape_(pass) {
    for (Index i = 0; i < 3 * shape_.channels; ++i) out[i] = 0;
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
  ChannelMap shape_;
  double block_[3][kBlock];
};

template <bool kScaled, typename T>
void backward(const CrownReluBwd<T>& pass, double* scratch, int threads) {
  const Relaxation<T> relaxation = pass.lower_line();
  const Index size = pass.size(), channels = pass.channels;
  const int shares = useful_threads(threads, pass.batch * pass.functions * size);
  for_each_share(shares, [&](int share) {
    ChannelSums<T> sums(scratch + share * 3 * channels, pass);
    Block<T> block(pass);
    Totals<T> totals;
    blocks(pass, share, shares, [&](Index sample, Index first, Index length) {
      block.fill(pass, relaxation, sample, first, length);
      totals.clear(length);
      for (Index row = sample * pass.functions; row < (sample + 1) * pass.functions; ++row) {
        const T* known = pass.kept + row * size + first;
        T* y = pass.out_rows + row * size + first;
        const T constant = pass.grad_bias == nullptr ? T(0) : pass.grad_bias[row];
        if (pass.grad_rows != nullptr)
          totals.template add<true, kScaled>(block, pass.grad_rows + row * size + first, constant, known, y, length,
                                             relaxation.same_slope);
        else
          totals.template add<false, kScaled>(block, nullptr, constant, known, y, length, relaxation.same_slope);
      }
      const Index at = sample * size + first;
      const T* __restrict__ c = pass.center + at;
      const T* __restrict__ r = pass.radius + at;
      T* __restrict__ to_center = pass.out_center + at;
      T* __restrict__ to_radius = pass.out_radius + at;
#pragma omp simd
      for (Index i = 0; i < length; ++i) {
        T grad_center, grad_radius;
        relu_lines_grad(totals.slope[i], totals.intercept[i], block.center[i], block.radius[i], relaxation.slope,
                        kTiny<T>, grad_center, grad_radius);
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
    pass.out_channels[i] = static_cast<T>(total);
  }
}

template <typename T>
void execute(const CrownReluBwd<T>& pass, double* scratch, int threads) {
  pass.scale != nullptr ? backward<true>(pass, scratch, threads) : backward<false>(pass, scratch, threads);
}

}  // namespace

FASTBOUND_RUN_NUMBERS(CrownReluFwd)
FASTBOUND_RUN_NUMBERS(CrownReluBwd)

}  // namespace fastbound::FASTBOUND_CPU_ISA
