// Compiled once per instruction set.
#include "crown_windows.h"

#include "cpu/run.h"

namespace fastbound::FASTBOUND_CPU_ISA {
namespace {

// Checked beforehand, but another thread may change it during the call.
inline Index near(Index corner) { return corner < -kFar ? -kFar : smaller(corner, kFar); }

// run(i, offset in the window, offset in the maps, length) for the parts of the rows of one share that lie on the map;
// outside(i, offset in the window, length) for the rest; done(i) after each row.
template <typename Run, typename Outside, typename Done>
void window_runs(const PassOnWindows& w, int share, int shares, Run run, Outside outside, Done done) {
  const Index line = w.width * w.channels, map_line = w.map_width * w.channels, height = line == 0 ? 0 : w.height;
  for (Index i = share_begin(w.count(), share, shares); i < share_begin(w.count(), share + 1, shares); ++i) {
    const Index corner_y = near(w.base[2 * i]), corner_x = near(w.base[2 * i + 1]);
    const Index top = corner_y * w.stride_y + w.start_y, left = corner_x * w.stride_x + w.start_x;
    const Index begin = left < 0 ? smaller(-left, w.width) : 0;
    const Index end = smaller(w.width, w.map_width - left) < begin ? begin : smaller(w.width, w.map_width - left);
    const Index map = i / w.functions * w.map_height * map_line;
    for (Index y = 0; y < height; ++y) {
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

template <bool kOffset, typename T>
void lines(const CrownWindowsLines<T>& pass, int threads) {
  const Index size = pass.size();
  const int shares = useful_threads(threads, pass.count() * size);
  for_each_share(shares, [&](int share) {
    double sum = 0;
    window_runs(
        pass, share, shares,
        [&](Index i, Index at, Index map, Index length) {
          const T* __restrict__ x = pass.values + i * size + at;
          T* __restrict__ y = pass.out + i * size + at;
          const T* __restrict__ low = pass.lower_slope + map;
          const T* __restrict__ up = pass.upper_slope + map;
          const T* __restrict__ up_offset = pass.upper_offset + map;
          const T* __restrict__ low_offset = kOffset ? pass.lower_offset + map : nullptr;
          T total = 0;
#pragma omp simd reduction(+ : total)
          for (Index k = 0; k < length; ++k) {
            y[k] = x[k] * (x[k] < T(0) ? up[k] : low[k]);
            total += kOffset ? x[k] * (x[k] < T(0) ? up_offset[k] : low_offset[k])
                             : (x[k] < T(0) ? x[k] * up_offset[k] : T(0));
          }
          sum += static_cast<double>(total);
        },
        [&](Index i, Index at, Index length) {
          for (Index k = 0; k < length; ++k) pass.out[i * size + at + k] = 0;
        },
        [&](Index i) {
          pass.bias[i] = static_cast<T>(sum);
          sum = 0;
        });
  });
}

template <typename T>
void execute(const CrownWindowsLines<T>& pass, double*, int threads) {
  pass.lower_offset != nullptr ? lines<true>(pass, threads) : lines<false>(pass, threads);
}

template <typename T>
void execute(const CrownWindowsConcretize<T>& pass, double*, int threads) {
  const Index size = pass.size();
  const int shares = useful_threads(threads, pass.count() * size);
  for_each_share(shares, [&](int share) {
    double sum = 0;
    window_runs(
        pass, share, shares,
        [&](Index i, Index at, Index map, Index length) {
          const T* __restrict__ x = pass.values + i * size + at;
          const T* __restrict__ c = pass.center + map;
          const T* __restrict__ r = pass.radius + map;
          T total = 0;
#pragma omp simd reduction(+ : total)
          for (Index k = 0; k < length; ++k) total += concretized(x[k], c[k], r[k]);
          sum += static_cast<double>(total);
        },
        [](Index, Index, Index) {},
        [&](Index i) {
          pass.out[i] = static_cast<T>(sum);
          sum = 0;
        });
  });
}

template <typename T>
void execute(const CrownWindowsFold<T>& f, double*, int threads) {
  const Index map = f.map_height * f.map_width * f.channels, run = f.kernel_width * f.channels;
  const Index pixel = f.kernel_height * run, per_row = f.height * f.width * pixel;
  const int shares = useful_threads(threads, f.count * per_row);
  for_each_share(shares, [&](int share) {
    for (Index i = share_begin(f.count, share, shares); i < share_begin(f.count, share + 1, shares); ++i) {
      T* target = f.out + i * map;
      for (Index k = 0; k < map; ++k) target[k] = 0;
      for (Index y = 0; per_row > 0 && y < f.height; ++y)
        for (Index ky = 0; ky < f.kernel_height; ++ky) {
          const Index row = y * f.stride_y - f.padding_y + ky * f.dilation_y;
          if (row < 0 || row >= f.map_height) continue;
          for (Index x = 0; x < f.width; ++x) {
            const T* __restrict__ from = f.columns + i * per_row + (y * f.width + x) * pixel + ky * run;
            const Index left = x * f.stride_x - f.padding_x;
            if (f.dilation_x == 1 && left >= 0 && left + f.kernel_width <= f.map_width) {
              T* __restrict__ to = target + (row * f.map_width + left) * f.channels;
              for (Index k = 0; k < run; ++k) to[k] += from[k];
              continue;
            }
            for (Index kx = 0; kx < f.kernel_width; ++kx) {
              const Index column = left + kx * f.dilation_x;
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

FASTBOUND_RUN_NUMBERS(CrownWindowsLines)
FASTBOUND_RUN_NUMBERS(CrownWindowsConcretize)
FASTBOUND_RUN_NUMBERS(CrownWindowsFold)

}  // namespace fastbound::FASTBOUND_CPU_ISA
