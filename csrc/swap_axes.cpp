// Host side: checks and dtype. CPU only; on a GPU torch's own copy runs at memory speed.
#include "cpu/swap_axes_cpu.h"
#include "host.h"
#include "isa.h"

namespace fastbound {

FASTBOUND_DECLARE_CPU(SwapAxes, swap_axes)

namespace {

void swap_axes_cpu(int dtype, Address x, Address out_x, std::int64_t outer, std::int64_t rows, std::int64_t columns,
                   int threads) {
  require_threads(threads);
  require_size(outer, "outer");
  require_size(rows, "rows");
  require_size(columns, "columns");
  if (outer * rows * columns == 0) return;
  require_pointer(x, "x");
  require_pointer(out_x, "out");
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    swap_axes<T>().copy(in<T>(x), out<T>(out_x), outer, rows, columns, threads);
  });
}

}  // namespace

void bind_swap_axes(pybind11::module_& m) {
  using pybind11::arg;
  m.def("swap_axes", swap_axes_cpu, arg("dtype"), arg("x"), arg("out"), arg("outer"), arg("rows"), arg("columns"),
        arg("threads"), NoGil());
}

}  // namespace fastbound
