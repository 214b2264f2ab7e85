// Host side: checks and dtype. No arithmetic.
#include "cpu/crown_concretize_cpu.h"
#include "host.h"
#include "isa.h"

namespace fastbound {

FASTBOUND_DECLARE_CPU(CrownConcretize, crown_concretize)

namespace {

using std::int64_t;

void check(Address rows, Address center, Address radius, int64_t batch, int64_t functions, int64_t size, int threads) {
  require_threads(threads);
  require_size(batch, "batch");
  require_size(functions, "functions");
  require_size(size, "size");
  if (batch * size == 0) return;
  if (functions > 0) require_pointer(rows, "rows");
  require_pointer(center, "center");
  require_pointer(radius, "radius");
}

void crown_concretize_fwd(int dtype, Address rows, Address center, Address radius, Address out_bounds, int64_t batch,
                          int64_t functions, int64_t size, int threads) {
  check(rows, center, radius, batch, functions, size, threads);
  if (batch * functions == 0) return;
  require_pointer(out_bounds, "out");
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    crown_concretize<T>().forward(in<T>(rows), in<T>(center), in<T>(radius), out<T>(out_bounds), batch, functions, size,
                                  threads);
  });
}

void crown_concretize_bwd(int dtype, Address grad, Address rows, Address center, Address radius, Address out_rows,
                          Address out_center, Address out_radius, int64_t batch, int64_t functions, int64_t size,
                          int threads) {
  check(rows, center, radius, batch, functions, size, threads);
  require((out_center == 0) == (out_radius == 0), "out_center and out_radius must be given together");
  if (batch * size == 0 || (out_rows == 0 && out_center == 0)) return;
  if (functions > 0) require_pointer(grad, "grad");
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    crown_concretize<T>().backward(in<T>(grad), in<T>(rows), in<T>(center), in<T>(radius), out<T>(out_rows),
                                   out<T>(out_center), out<T>(out_radius), batch, functions, size, threads);
  });
}

}  // namespace

void bind_crown_concretize(pybind11::module_& m) {
  using pybind11::arg;
  m.def("crown_concretize_fwd", crown_concretize_fwd, arg("dtype"), arg("rows"), arg("center"), arg("radius"),
        arg("out"), arg("batch"), arg("functions"), arg("size"), arg("threads"), NoGil());
  m.def("crown_concretize_bwd", crown_concretize_bwd, arg("dtype"), arg("grad"), arg("rows"), arg("center"),
        arg("radius"), arg("out_rows"), arg("out_center"), arg("out_radius"), arg("batch"), arg("functions"),
        arg("size"), arg("threads"), NoGil());
}

}  // namespace fastbound
