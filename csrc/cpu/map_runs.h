// Runs of memory with their per-channel numbers, and sums per channel, for maps [outer][channels][inner].
// Included into the files that are compiled once per instruction set; no standard library, see parallel.h.
#pragma once

#include "cpu/parallel.h"
#include "interval_norm_relu.h"

namespace {

using Shape = fastbound::ChannelMap;

// Per-channel numbers along a run of memory: one per element if channels are innermost, else one for all elements.
template <typename T>
struct Varying {
  const T* values;
  T operator[](Index i) const { return values[i]; }
  Varying from(Index offset) const { return {values + offset}; }
};

template <typename T>
struct Constant {
  T value;
  T operator[](Index) const { return value; }
  Constant from(Index) const { return *this; }
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

// visit(share, first element, length, scale, others...) over all runs of a map, with the numbers of its channels along
// each run. Without an affine map (scale is null) they are 1 and zeros.
template <typename T, typename Visit, typename... Others>
void affine_runs(const Shape& shape, int shares, Visit visit, const T* scale, const Others*... others) {
  for_each_share(shares, [&](int share) {
    if (scale == nullptr) {
      const Index first = share_begin(shape.size(), share, shares);
      const Index length = share_begin(shape.size(), share + 1, shares) - first;
      visit(share, first, length, Constant<T>{T(1)}, ((void)others, Constant<T>{T(0)})...);
    } else if (shape.inner == 1) {
      const auto with = [&](const auto&... repeated) {
        row_runs(shape, share, shares,
                 [&](Index first, Index length) { visit(share, first, length, repeated.values...); });
      };
      with(Repeated<T>(scale, shape.channels), Repeated<T>(others, shape.channels)...);
    } else {
      plane_runs(shape, share, shares, [&](Index first, Index length, Index channel) {
        visit(share, first, length, Constant<T>{scale[channel]},
              Constant<T>{others == nullptr ? T(0) : others[channel]}...);
      });
    }
  });
}

// Two sums per channel in double, so that no error grows with the size of the map. Shares have their own sums, added in
// the order of the shares. rows(first, length, column, one, two) adds a run to arrays along it, plane(first, length,
// channel, one, two) to the sums of one channel.
template <typename Acc, typename Rows, typename Plane>
void two_sums(Shape shape, double* scratch /* [shares, 2, C] */, int shares, Index flush_every, Rows rows,
              Plane plane) {
  const Index channels = shape.channels;
  for_each_share(shares, [&](int share) {
    double* one = scratch + 2 * channels * share;
    double* two = one + channels;
    for (Index i = 0; i < 2 * channels; ++i) one[i] = 0;
    if (shape.inner != 1) {
      plane_runs(shape, share, shares, [&](Index first, Index length, Index channel) {
        plane(first, length, channel, one[channel], two[channel]);
      });
      return;
    }
    // Wide rows are cut into columns of at most kRun, which the accumulators on the stack can hold.
    const Index end = share_begin(shape.outer, share + 1, shares), step = rows_per_run(channels);
    Acc run_one[kRun], run_two[kRun];
    for (Index column = 0; column < channels; column += kRun) {
      const Index width = smaller(kRun, channels - column), wide = step * width;
      for (Index row = share_begin(shape.outer, share, shares); row < end;) {
        for (Index i = 0; i < wide; ++i) run_one[i] = run_two[i] = 0;
        for (Index run = 0; run < flush_every && row < end; ++run, row += step)
          rows(row * channels + column, smaller(step, end - row) * width, column, run_one, run_two);
        for (Index i = 0; i < wide; i += width)
          for (Index c = 0; c < width; ++c) {
            one[column + c] += static_cast<double>(run_one[i + c]);
            two[column + c] += static_cast<double>(run_two[i + c]);
          }
      }
    }
  });
  for (int share = 1; share < shares; ++share)
    for (Index i = 0; i < 2 * channels; ++i) scratch[i] += scratch[2 * channels * share + i];
}

// Terms are added in T over kFlush runs, then in double: half the work of double throughout.
constexpr Index kFlush = 32;

// The sums over a map that make the gradients of scale and shift, to sum_scale and sum_shift of the pass. at(first)
// gives the terms of the run that begins there: terms(i, scale, |scale|, sign(scale), shift, to_scale, to_shift) for
// element i of it.
template <typename Pass, typename At>
void affine_sums(const Pass& pass, double* scratch /* [threads, 2, C] */, int threads, At at) {
  using T = typename Pass::T;
  const Shape& shape = pass;
  const T *scale = pass.scale, *shift = pass.shift;
  const int shares = useful_threads(threads, shape.size());
  const bool rows = shape.inner == 1;
  const Repeated<T> scales(rows ? scale : nullptr, shape.channels), shifts(rows ? shift : nullptr, shape.channels);
  two_sums<T>(
      shape, scratch, shares, kFlush,
      [&](Index first, Index length, Index column, T* __restrict__ scale_sums, T* __restrict__ shift_sums) {
        const T* __restrict__ s = scales.values.values + column;
        const T* __restrict__ b = shifts.values.values + column;
        const auto terms = at(first);
#pragma omp simd
        for (Index i = 0; i < length; ++i) {
          T to_scale, to_shift;
          terms(i, s[i], fastbound::absolute(s[i]), fastbound::sign(s[i]), b[i], to_scale, to_shift);
          scale_sums[i] += to_scale;
          shift_sums[i] += to_shift;
        }
      },
      [&](Index first, Index length, Index channel, double& scale_sum, double& shift_sum) {
        // Named outside the loop: a branch on them inside would keep it from being vectorised.
        const T s = scale[channel], magnitude = fastbound::absolute(s), direction = fastbound::sign(s),
                b = shift[channel];
        for (Index begin = 0; begin < length; begin += kRun) {
          const auto terms = at(first + begin);
          const Index width = smaller(kRun, length - begin);
          T p = 0, q = 0;
#pragma omp simd reduction(+ : p, q)
          for (Index i = 0; i < width; ++i) {
            T to_scale, to_shift;
            terms(i, s, magnitude, direction, b, to_scale, to_shift);
            p += to_scale;
            q += to_shift;
          }
          scale_sum += static_cast<double>(p);
          shift_sum += static_cast<double>(q);
        }
      });
  for (Index c = 0; c < shape.channels; ++c) {
    pass.sum_scale[c] = static_cast<T>(scratch[c]);
    pass.sum_shift[c] = static_cast<T>(scratch[shape.channels + c]);
  }
}

}  // namespace
