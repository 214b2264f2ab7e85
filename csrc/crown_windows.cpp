// Host side: checks and dtype. No arithmetic.
#include <pybind11/stl.h>

#include <array>

#include "cpu/crown_windows_cpu.h"
#include "host.h"
#include "isa.h"

namespace fastbound {

FASTBOUND_DECLARE_CPU(CrownWindows, crown_windows)

namespace {

using std::int64_t;
using Pair = std::array<int64_t, 2>;
using Triple = std::array<int64_t, 3>;

// window and map: (height, width, channels).
Windows check(Address base, int64_t batch, int64_t functions, Triple window, Pair map, Pair stride, Pair start,
              int threads) {
  require_threads(threads);
  require_size(batch, "batch");
  require_size(functions, "functions");
  for (const int64_t size : window) require_size(size, "window");
  for (const int64_t size : map) require_size(size, "map");
  if (batch * functions > 0) require_pointer(base, "base");
  return {in<int64_t>(base),      batch * functions,   functions, window[0], window[1], window[2], map[0], map[1],
          {stride[0], stride[1]}, {start[0], start[1]}};
}

void crown_windows_lines(int dtype, Address values, Address base, Address lower_slope, Address lower_offset,
                         Address upper_slope, Address upper_offset, Address out_values, Address bias, int64_t batch,
                         int64_t functions, Triple window, Pair map, Pair stride, Pair start, int threads) {
  const Windows windows = check(base, batch, functions, window, map, stride, start, threads);
  if (windows.count * window[0] * window[1] * window[2] == 0) return;
  require_pointer(values, "values");
  require_pointer(lower_slope, "lower_slope");
  require_pointer(upper_slope, "upper_slope");
  require_pointer(upper_offset, "upper_offset");
  require_pointer(out_values, "out_values");
  require_pointer(bias, "bias");
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    crown_windows<T>().lines(in<T>(values), in<T>(lower_slope), in<T>(lower_offset), in<T>(upper_slope),
                             in<T>(upper_offset), out<T>(out_values), out<T>(bias), windows, threads);
  });
}

void crown_windows_concretize(int dtype, Address values, Address base, Address center, Address radius,
                              Address out_bounds, int64_t batch, int64_t functions, Triple window, Pair map,
                              Pair stride, Pair start, int threads) {
  const Windows windows = check(base, batch, functions, window, map, stride, start, threads);
  if (windows.count * window[0] * window[1] * window[2] == 0) return;
  require_pointer(values, "values");
  require_pointer(center, "center");
  require_pointer(radius, "radius");
  require_pointer(out_bounds, "out");
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    crown_windows<T>().concretize(in<T>(values), in<T>(center), in<T>(radius), out<T>(out_bounds), windows, threads);
  });
}

void crown_windows_fold(int dtype, Address columns, Address out_maps, int64_t count, Pair size, Pair kernel,
                        int64_t channels, Pair map, Pair stride, Pair padding, Pair dilation, int threads) {
  require_threads(threads);
  require_size(count, "count");
  for (const int64_t n : {size[0], size[1], kernel[0], kernel[1], channels, map[0], map[1]}) require_size(n, "size");
  if (count * map[0] * map[1] * channels == 0) return;
  require_pointer(out_maps, "out");
  if (size[0] * size[1] * kernel[0] * kernel[1] > 0) require_pointer(columns, "columns");
  const Fold fold{count,
                  size[0],
                  size[1],
                  kernel[0],
                  kernel[1],
                  channels,
                  map[0],
                  map[1],
                  {stride[0], stride[1]},
                  {padding[0], padding[1]},
                  {dilation[0], dilation[1]}};
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    crown_windows<T>().fold(in<T>(columns), out<T>(out_maps), fold, threads);
  });
}

}  // namespace

void bind_crown_windows(pybind11::module_& m) {
  using pybind11::arg;
  m.def("crown_windows_lines", crown_windows_lines, arg("dtype"), arg("values"), arg("base"), arg("lower_slope"),
        arg("lower_offset"), arg("upper_slope"), arg("upper_offset"), arg("out_values"), arg("bias"), arg("batch"),
        arg("functions"), arg("window"), arg("map"), arg("stride"), arg("start"), arg("threads"), NoGil());
  m.def("crown_windows_concretize", crown_windows_concretize, arg("dtype"), arg("values"), arg("base"), arg("center"),
        arg("radius"), arg("out"), arg("batch"), arg("functions"), arg("window"), arg("map"), arg("stride"),
        arg("start"), arg("threads"), NoGil());
  m.def("crown_windows_fold", crown_windows_fold, arg("dtype"), arg("columns"), arg("out"), arg("count"), arg("size"),
        arg("kernel"), arg("channels"), arg("map"), arg("stride"), arg("padding"), arg("dilation"), arg("threads"),
        NoGil());
}

}  // namespace fastbound
