// Compiled once per instruction set.
#include "cpu/crown_windows_cpu.h"
#include "cpu/parallel.h"
#include "crown_concretize.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

// run(i, offset in the window, offset in the maps, length) for the parts of the rows of one share that lie on the map;
// outside(i, offset in the window, length) for the rest; done(i) after each row.
template <typename Run, typename Outside, typename Done>
void window_runs(const Windows& w, int share, int shares, Run run, Outside outside, Done done) {
  const Index line = w.width * w.channels, map_line = w.map_width * w.channels;
  for (Index i = share_begin(w.count, share, shares); i < share_begin(w.count, share + 1, shares); ++i) {
    const Index top = w.base[2 * i] * w.stride[0] + w.start[0], left = w.base[2 * i + 1] * w.stride[1] + w.start[1];
    const Index begin = left < 0 ? smaller(-left, w.width) : 0;
    const Index end = smaller(w.width, w.map_width - left) < begin ? begin : smaller(w.width, w.map_width - left);
    const Index map = i / w.per_sample * w.map_height * map_line;
    for (Index y = 0; y < w.height; ++y) {
      if (top + y < 0 || top + y >= w.map_height) {
        outside(i, y * line, line);
        continue;
      }
      outside(i, y * line, begin * w.channels);
      if (end > begin)
        run(i, y * line + begin * w.channels, map + (top + y) * map_line + (left + begin) * w.channels,
            (end - begin) * w.channels);
      outside(i, y * line + end * w.channels, line - end * w.channels);
    }
    done(i);
  }
}

template <typename T>
void lines(const T* values, const T* lower_slope, const T* lower_offset, const T* upper_slope, const T* upper_offset,
           T* out, T* bias, Windows windows, int threads) {
  const Index size = windows.height * windows.width * windows.channels;
  const int shares = useful_threads(threads, windows.count * size);
  for_each_share(shares, [&](int share) {
    double sum = 0;
    window_runs(
        windows, share, shares,
        [&](Index i, Index at, Index map, Index length) {
          const T* __restrict__ x = values + i * size + at;
          T* __restrict__ y = out + i * size + at;
          const T* __restrict__ low = lower_slope + map;
          const T* __restrict__ up = upper_slope + map;
          const T* __restrict__ low_offset = lower_offset == nullptr ? nullptr : lower_offset + map;
          const T* __restrict__ up_offset = upper_offset + map;
          T total = 0;
          if (low_offset == nullptr) {
#pragma omp simd reduction(+ : total)
            for (Index k = 0; k < length; ++k) {
              y[k] = x[k] * (x[k] < T(0) ? up[k] : low[k]);
              total += x[k] < T(0) ? x[k] * up_offset[k] : T(0);
            }
          } else {
#pragma omp simd reduction(+ : total)
            for (Index k = 0; k < length; ++k) {
              y[k] = x[k] * (x[k] < T(0) ? up[k] : low[k]);
              total += x[k] * (x[k] < T(0) ? up_offset[k] : low_offset[k]);
            }
          }
          sum += static_cast<double>(total);
        },
        [&](Index i, Index at, Index length) {
          for (Index k = 0; k < length; ++k) out[i * size + at + k] = 0;
        },
        [&](Index i) {
          bias[i] = static_cast<T>(sum);
          sum = 0;
        });
  });
}

template <typename T>
void concretize(const T* values, const T* center, const T* radius, T* out, Windows windows, int threads) {
  const Index size = windows.height * windows.width * windows.channels;
  const int shares = useful_threads(threads, windows.count * size);
  for_each_share(shares, [&](int share) {
    double sum = 0;
    window_runs(
        windows, share, shares,
        [&](Index i, Index at, Index map, Index length) {
          const T* __restrict__ x = values + i * size + at;
          const T* __restrict__ c = center + map;
          const T* __restrict__ r = radius + map;
          T total = 0;
#pragma omp simd reduction(+ : total)
          for (Index k = 0; k < length; ++k) total += concretized(x[k], c[k], r[k]);
          sum += static_cast<double>(total);
        },
        [](Index, Index, Index) {},
        [&](Index i) {
          out[i] = static_cast<T>(sum);
          sum = 0;
        });
  });
}

template <typename T>
void fold(const T* columns, T* out, Fold f, int threads) {
  const Index map = f.map_height * f.map_width * f.channels, run = f.kernel_width * f.channels;
  const Index pixel = f.kernel_height * run, per_row = f.height * f.width * pixel;
  const int shares = useful_threads(threads, f.count * per_row);
  for_each_share(shares, [&](int share) {
    for (Index i = share_begin(f.count, share, shares); i < share_begin(f.count, share + 1, shares); ++i) {
      T* target = out + i * map;
      for (Index k = 0; k < map; ++k) target[k] = 0;
      for (Index y = 0; y < f.height; ++y)
        for (Index ky = 0; ky < f.kernel_height; ++ky) {
          const Index row = y * f.stride[0] - f.padding[0] + ky * f.dilation[0];
          if (row < 0 || row >= f.map_height) continue;
          for (Index x = 0; x < f.width; ++x) {
            const T* __restrict__ from = columns + i * per_row + (y * f.width + x) * pixel + ky * run;
            const Index left = x * f.stride[1] - f.padding[1];
            if (f.dilation[1] == 1 && left >= 0 && left + f.kernel_width <= f.map_width) {
              T* __restrict__ to = target + (row * f.map_width + left) * f.channels;
              for (Index k = 0; k < run; ++k) to[k] += from[k];
              continue;
            }
            for (Index kx = 0; kx < f.kernel_width; ++kx) {
              const Index column = left + kx * f.dilation[1];
              if (column < 0 || column >= f.map_width) continue;
              for (Index c = 0; c < f.channels; ++c)
                target[(row * f.map_width + column) * f.channels + c] += from[kx * f.channels + c];
            }
          }
        }
    }
  });
}

}  // namespace

template <typename T>
CrownWindows<T> crown_windows() {
  return {lines<T>, concretize<T>, fold<T>};
}

template CrownWindows<float> crown_windows<float>();
template CrownWindows<double> crown_windows<double>();

}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
