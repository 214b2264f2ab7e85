// Host side: checks, dtype and device. No arithmetic.
#include <limits>
#include <vector>

#include "cpu/crown_relu_cpu.h"
#include "host.h"
#include "isa.h"
#ifdef FASTBOUND_WITH_CUDA
#include "cuda/crown_relu.cuh"
#endif

namespace fastbound {

FASTBOUND_DECLARE_CPU(CrownRelu, crown_relu)

namespace {

using std::int64_t;

// Relaxations by number: 0 adaptive, 1 same slope, 2 zero, 3 one.
template <typename T>
Relaxation<T> relaxation_of(double slope, int kind) {
  const T infinity = std::numeric_limits<T>::infinity();
  return {static_cast<T>(slope), kind == 2 ? infinity : (kind == 3 ? -infinity : T(0)), kind == 1};
}

CrownShape check(int64_t batch, int64_t rows, int64_t outer, int64_t channels, int64_t inner, double slope, int kind) {
  require_size(batch, "batch");
  require_size(rows, "rows");
  require_size(outer, "outer");
  require_size(channels, "channels");
  require_size(inner, "inner");
  require(inner == 1 || outer == 1, "a map has its channels innermost (inner = 1) or outermost (outer = 1)");
  if (!(slope >= 0 && slope <= 1))
    throw std::invalid_argument("slope must lie in [0, 1], got " + std::to_string(slope));
  if (kind < 0 || kind > 3) throw std::invalid_argument("relaxation must lie in [0, 3], got " + std::to_string(kind));
  return {batch, rows, outer, channels, inner};
}

void check_tensors(Address rows, const char* name, Address center, Address radius, CrownShape shape) {
  if (shape.batch == 0 || shape.size() == 0) return;
  if (shape.rows > 0) require_pointer(rows, name);
  require_pointer(center, "center");
  require_pointer(radius, "radius");
}

// Checks the arguments; true if there is something to do.
bool check_fwd(Address rows, Address center, Address radius, Address out_rows, Address bias, CrownShape shape) {
  if (shape.batch * shape.rows == 0) return false;
  check_tensors(rows, "rows", center, radius, shape);
  require_pointer(bias, "bias");
  if (shape.size() > 0) require_pointer(out_rows, "out_rows");
  return true;
}

void check_bwd(Address kept, Address center, Address radius, Address out_rows, Address out_center, Address out_radius,
               Address out_channels, CrownShape shape) {
  check_tensors(kept, "kept", center, radius, shape);
  if (shape.channels > 0) require_pointer(out_channels, "out_channels");
  if (shape.batch * shape.size() == 0) return;
  require_pointer(out_center, "out_center");
  require_pointer(out_radius, "out_radius");
  if (shape.rows > 0) require_pointer(out_rows, "out_rows");
}

void crown_relu_fwd(int dtype, Address rows, Address center, Address radius, Address scale, Address shift,
                    Address offset, Address out_rows, Address bias, int64_t batch, int64_t functions, int64_t outer,
                    int64_t channels, int64_t inner, double slope, int relaxation, int threads) {
  require_threads(threads);
  const CrownShape shape = check(batch, functions, outer, channels, inner, slope, relaxation);
  if (!check_fwd(rows, center, radius, out_rows, bias, shape)) return;
  std::vector<double> scratch(threads * batch * functions);
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const CrownBounds<T> bounds{in<T>(center), in<T>(radius), in<T>(scale), in<T>(shift), in<T>(offset)};
    crown_relu<T>().forward(in<T>(rows), bounds, out<T>(out_rows), out<T>(bias), scratch.data(), shape,
                            relaxation_of<T>(slope, relaxation), threads);
  });
}

void crown_relu_bwd(int dtype, Address grad_rows, Address grad_bias, Address kept, Address center, Address radius,
                    Address scale, Address shift, Address offset, Address out_rows, Address out_center,
                    Address out_radius, Address out_channels, int64_t batch, int64_t functions, int64_t outer,
                    int64_t channels, int64_t inner, double slope, int relaxation, int threads) {
  require_threads(threads);
  const CrownShape shape = check(batch, functions, outer, channels, inner, slope, relaxation);
  check_bwd(kept, center, radius, out_rows, out_center, out_radius, out_channels, shape);
  std::vector<double> scratch(threads * 3 * channels);
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const CrownBounds<T> bounds{in<T>(center), in<T>(radius), in<T>(scale), in<T>(shift), in<T>(offset)};
    crown_relu<T>().backward(in<T>(grad_rows), in<T>(grad_bias), in<T>(kept), bounds, out<T>(out_rows),
                             out<T>(out_center), out<T>(out_radius), out<T>(out_channels), scratch.data(), shape,
                             relaxation_of<T>(slope, relaxation), std::numeric_limits<T>::min(), threads);
  });
}

#ifdef FASTBOUND_WITH_CUDA
// Size, in doubles, of the workspace that a launch needs.
int64_t crown_relu_fwd_workspace(int dtype, int64_t batch, int64_t functions, int64_t outer, int64_t channels,
                                 int64_t inner) {
  const MapShape map{batch, outer, channels, inner};
  return cuda::dispatch(dtype, [&](auto zero) {
    return batch * functions * cuda::crown_relu_fwd_tiles(map, functions, cuda::kPack<decltype(zero)>).tiles;
  });
}

int64_t crown_relu_bwd_workspace(int dtype, int64_t batch, int64_t outer, int64_t channels, int64_t inner) {
  return cuda::dispatch(dtype, [&](auto zero) {
    const Sweep sweep = cuda::crown_relu_bwd_sweep({batch, outer, channels, inner}, cuda::kPack<decltype(zero)>);
    return 3 * sweep.parts * sweep.period;
  });
}

void crown_relu_fwd_cuda(int dtype, Address rows, Address center, Address radius, Address scale, Address shift,
                         Address offset, Address out_rows, Address bias, int64_t batch, int64_t functions,
                         int64_t outer, int64_t channels, int64_t inner, double slope, int relaxation,
                         Address workspace, Address stream, int device) {
  const CrownShape shape = check(batch, functions, outer, channels, inner, slope, relaxation);
  if (!check_fwd(rows, center, radius, out_rows, bias, shape)) return;
  if (shape.size() > 0) require_pointer(workspace, "workspace");
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    using A = cuda::Compute<S>;
    const cuda::CrownBounds<S> bounds{in<S>(center), in<S>(radius), in<A>(scale), in<A>(shift), in<A>(offset)};
    cuda::crown_relu_fwd_launch<S>(in<S>(rows), bounds, out<S>(out_rows), out<S>(bias), out<double>(workspace),
                                   {batch, outer, channels, inner}, functions, relaxation_of<A>(slope, relaxation),
                                   reinterpret_cast<cudaStream_t>(stream), device);
  });
}

void crown_relu_bwd_cuda(int dtype, Address grad_rows, Address grad_bias, Address kept, Address center, Address radius,
                         Address scale, Address shift, Address offset, Address out_rows, Address out_center,
                         Address out_radius, Address out_channels, int64_t batch, int64_t functions, int64_t outer,
                         int64_t channels, int64_t inner, double slope, int relaxation, Address workspace,
                         Address stream, int device) {
  const CrownShape shape = check(batch, functions, outer, channels, inner, slope, relaxation);
  check_bwd(kept, center, radius, out_rows, out_center, out_radius, out_channels, shape);
  if (channels == 0) return;
  if (batch * shape.size() > 0) require_pointer(workspace, "workspace");
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    using A = cuda::Compute<S>;
    const cuda::CrownBounds<S> bounds{in<S>(center), in<S>(radius), in<A>(scale), in<A>(shift), in<A>(offset)};
    cuda::crown_relu_bwd_launch<S>(in<S>(grad_rows), in<S>(grad_bias), in<S>(kept), bounds, out<S>(out_rows),
                                   out<S>(out_center), out<S>(out_radius), out<A>(out_channels), out<double>(workspace),
                                   {batch, outer, channels, inner}, functions, relaxation_of<A>(slope, relaxation),
                                   reinterpret_cast<cudaStream_t>(stream), device);
  });
}
#endif

}  // namespace

void bind_crown_relu(pybind11::module_& m) {
  using pybind11::arg;
  m.def("crown_relu_fwd", crown_relu_fwd, arg("dtype"), arg("rows"), arg("center"), arg("radius"), arg("scale"),
        arg("shift"), arg("offset"), arg("out_rows"), arg("bias"), arg("batch"), arg("functions"), arg("outer"),
        arg("channels"), arg("inner"), arg("slope"), arg("relaxation"), arg("threads"), NoGil());
  m.def("crown_relu_bwd", crown_relu_bwd, arg("dtype"), arg("grad_rows"), arg("grad_bias"), arg("kept"), arg("center"),
        arg("radius"), arg("scale"), arg("shift"), arg("offset"), arg("out_rows"), arg("out_center"), arg("out_radius"),
        arg("out_channels"), arg("batch"), arg("functions"), arg("outer"), arg("channels"), arg("inner"), arg("slope"),
        arg("relaxation"), arg("threads"), NoGil());
#ifdef FASTBOUND_WITH_CUDA
  m.def("crown_relu_fwd_workspace", crown_relu_fwd_workspace, arg("dtype"), arg("batch"), arg("functions"),
        arg("outer"), arg("channels"), arg("inner"));
  m.def("crown_relu_bwd_workspace", crown_relu_bwd_workspace, arg("dtype"), arg("batch"), arg("outer"), arg("channels"),
        arg("inner"));
  m.def("crown_relu_fwd_cuda", crown_relu_fwd_cuda, arg("dtype"), arg("rows"), arg("center"), arg("radius"),
        arg("scale"), arg("shift"), arg("offset"), arg("out_rows"), arg("bias"), arg("batch"), arg("functions"),
        arg("outer"), arg("channels"), arg("inner"), arg("slope"), arg("relaxation"), arg("workspace"), arg("stream"),
        arg("device"), NoGil());
  m.def("crown_relu_bwd_cuda", crown_relu_bwd_cuda, arg("dtype"), arg("grad_rows"), arg("grad_bias"), arg("kept"),
        arg("center"), arg("radius"), arg("scale"), arg("shift"), arg("offset"), arg("out_rows"), arg("out_center"),
        arg("out_radius"), arg("out_channels"), arg("batch"), arg("functions"), arg("outer"), arg("channels"),
        arg("inner"), arg("slope"), arg("relaxation"), arg("workspace"), arg("stream"), arg("device"), NoGil());
#endif
}

}  // namespace fastbound
