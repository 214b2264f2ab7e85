// Host side: checks, dtype and device. No arithmetic.
#include "cpu/crown_concretize_cpu.h"
#include "host.h"
#include "isa.h"
#ifdef FASTBOUND_WITH_CUDA
#include "cuda/crown_concretize.cuh"
#endif

namespace fastbound {

FASTBOUND_DECLARE_CPU(CrownConcretize, crown_concretize)

namespace {

using std::int64_t;

void check(Address rows, Address center, Address radius, int64_t batch, int64_t functions, int64_t size) {
  require_size(batch, "batch");
  require_size(functions, "functions");
  require_size(size, "size");
  if (batch * size == 0) return;
  if (functions > 0) require_pointer(rows, "rows");
  require_pointer(center, "center");
  require_pointer(radius, "radius");
}

// Checks the arguments; true if there is something to do.
bool check_bwd(Address grad, Address rows, Address center, Address radius, Address out_rows, Address out_center,
               Address out_radius, int64_t batch, int64_t functions, int64_t size) {
  check(rows, center, radius, batch, functions, size);
  require((out_center == 0) == (out_radius == 0), "out_center and out_radius must be given together");
  if (batch * size == 0 || (out_rows == 0 && out_center == 0)) return false;
  if (functions > 0) require_pointer(grad, "grad");
  return true;
}

void crown_concretize_fwd(int dtype, Address rows, Address center, Address radius, Address out_bounds, int64_t batch,
                          int64_t functions, int64_t size, int threads) {
  require_threads(threads);
  check(rows, center, radius, batch, functions, size);
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
  require_threads(threads);
  if (!check_bwd(grad, rows, center, radius, out_rows, out_center, out_radius, batch, functions, size)) return;
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    crown_concretize<T>().backward(in<T>(grad), in<T>(rows), in<T>(center), in<T>(radius), out<T>(out_rows),
                                   out<T>(out_center), out<T>(out_radius), batch, functions, size, threads);
  });
}

#ifdef FASTBOUND_WITH_CUDA
// Size, in doubles, of the workspace that a launch needs.
int64_t crown_concretize_fwd_workspace(int dtype, int64_t batch, int64_t functions, int64_t size) {
  return cuda::dispatch(dtype, [&](auto zero) {
    return batch * functions * make_row_tiles(batch, functions, size, cuda::kPack<decltype(zero)>).tiles;
  });
}

void crown_concretize_fwd_cuda(int dtype, Address rows, Address center, Address radius, Address out_bounds,
                               int64_t batch, int64_t functions, int64_t size, Address workspace, Address stream,
                               int device) {
  check(rows, center, radius, batch, functions, size);
  if (batch * functions == 0) return;
  require_pointer(out_bounds, "out");
  if (size > 0) require_pointer(workspace, "workspace");
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    cuda::crown_concretize_fwd_launch<S>(in<S>(rows), in<S>(center), in<S>(radius), out<S>(out_bounds),
                                         out<double>(workspace), batch, functions, size,
                                         reinterpret_cast<cudaStream_t>(stream), device);
  });
}

void crown_concretize_bwd_cuda(int dtype, Address grad, Address rows, Address center, Address radius, Address out_rows,
                               Address out_center, Address out_radius, int64_t batch, int64_t functions, int64_t size,
                               Address stream, int device) {
  if (!check_bwd(grad, rows, center, radius, out_rows, out_center, out_radius, batch, functions, size)) return;
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    cuda::crown_concretize_bwd_launch<S>(in<S>(grad), in<S>(rows), in<S>(center), in<S>(radius), out<S>(out_rows),
                                         out<S>(out_center), out<S>(out_radius), batch, functions, size,
                                         reinterpret_cast<cudaStream_t>(stream), device);
  });
}
#endif

}  // namespace

void bind_crown_concretize(pybind11::module_& m) {
  using pybind11::arg;
  m.def("crown_concretize_fwd", crown_concretize_fwd, arg("dtype"), arg("rows"), arg("center"), arg("radius"),
        arg("out"), arg("batch"), arg("functions"), arg("size"), arg("threads"), NoGil());
  m.def("crown_concretize_bwd", crown_concretize_bwd, arg("dtype"), arg("grad"), arg("rows"), arg("center"),
        arg("radius"), arg("out_rows"), arg("out_center"), arg("out_radius"), arg("batch"), arg("functions"),
        arg("size"), arg("threads"), NoGil());
#ifdef FASTBOUND_WITH_CUDA
  m.def("crown_concretize_fwd_workspace", crown_concretize_fwd_workspace, arg("dtype"), arg("batch"), arg("functions"),
        arg("size"));
  m.def("crown_concretize_fwd_cuda", crown_concretize_fwd_cuda, arg("dtype"), arg("rows"), arg("center"), arg("radius"),
        arg("out"), arg("batch"), arg("functions"), arg("size"), arg("workspace"), arg("stream"), arg("device"),
        NoGil());
  m.def("crown_concretize_bwd_cuda", crown_concretize_bwd_cuda, arg("dtype"), arg("grad"), arg("rows"), arg("center"),
        arg("radius"), arg("out_rows"), arg("out_center"), arg("out_radius"), arg("batch"), arg("functions"),
        arg("size"), arg("stream"), arg("device"), NoGil());
#endif
}

}  // namespace fastbound
