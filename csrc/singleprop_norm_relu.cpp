// Host side: checks, dtype and device. No arithmetic.
#include <vector>

#include "cpu/singleprop_norm_relu_cpu.h"
#include "host.h"
#include "isa.h"
#ifdef FASTBOUND_WITH_CUDA
#include "cuda/singleprop_norm_relu.cuh"
#endif

namespace fastbound {

FASTBOUND_DECLARE_CPU(SinglePropNormRelu, singleprop_norm_relu)

namespace {

using std::int64_t;

// Checks the arguments; true if there is something to do.
bool check(int64_t outer, int64_t channels, int64_t inner, int activation) {
  require_size(outer, "outer");
  require_size(channels, "channels");
  require_size(inner, "inner");
  require(activation >= 0 && activation <= 2, "activation must be 0 (none), 1 (zero) or 2 (fast-lin)");
  return outer > 0 && channels > 0 && inner > 0;
}

void check_maps(Address grad_nominal, Address grad_radius, Address nominal, Address radius) {
  require_pointer(grad_nominal, "grad_nominal");
  require_pointer(grad_radius, "grad_radius");
  require_pointer(nominal, "nominal");
  require_pointer(radius, "radius");
}

bool check_fwd(Address nominal, Address radius, Address scale, Address shift, Address out_nominal, Address out_radius,
               int64_t outer, int64_t channels, int64_t inner, int activation) {
  if (!check(outer, channels, inner, activation)) return false;
  require_pointer(nominal, "nominal");
  require_pointer(radius, "radius");
  require_pointer(out_nominal, "out_nominal");
  require_pointer(out_radius, "out_radius");
  require((scale == 0) == (shift == 0), "scale and shift must be given together");
  return true;
}

bool check_bwd_sums(Address grad_nominal, Address grad_radius, Address nominal, Address radius, Address scale,
                    Address shift, Address sum_scale, Address sum_shift, int64_t outer, int64_t channels, int64_t inner,
                    int activation) {
  const bool maps = check(outer, channels, inner, activation);
  if (channels == 0) return false;
  require_pointer(scale, "scale");
  require_pointer(shift, "shift");
  require_pointer(sum_scale, "sum_scale");
  require_pointer(sum_shift, "sum_shift");
  if (maps) check_maps(grad_nominal, grad_radius, nominal, radius);
  return true;
}

bool check_bwd(Address grad_nominal, Address grad_radius, Address nominal, Address radius, Address scale, Address shift,
               Address nominal_mul, Address nominal_add, Address out_grad_nominal, Address out_grad_radius,
               int64_t outer, int64_t channels, int64_t inner, int activation) {
  if (!check(outer, channels, inner, activation)) return false;
  check_maps(grad_nominal, grad_radius, nominal, radius);
  require_pointer(out_grad_nominal, "out_grad_nominal");
  require_pointer(out_grad_radius, "out_grad_radius");
  require((scale == 0) == (shift == 0), "scale and shift must be given together");
  require((nominal_mul == 0) == (nominal_add == 0), "nominal_mul and nominal_add must be given together");
  require(nominal_mul == 0 || scale != 0, "nominal_mul needs scale");
  return true;
}

void singleprop_norm_relu_fwd(int dtype, Address nominal, Address radius, Address scale, Address shift,
                              Address out_nominal, Address out_radius, int64_t outer, int64_t channels, int64_t inner,
                              int activation, int threads) {
  require_threads(threads);
  if (!check_fwd(nominal, radius, scale, shift, out_nominal, out_radius, outer, channels, inner, activation)) return;
  dispatch_storage(dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    singleprop_norm_relu<S>().forward(in<S>(nominal), in<S>(radius), in<T>(scale), in<T>(shift), out<S>(out_nominal),
                                      out<S>(out_radius), outer, channels, inner, activation, threads);
  });
}

void singleprop_norm_relu_bwd_sums(int dtype, Address grad_nominal, Address grad_radius, Address nominal,
                                   Address radius, Address scale, Address shift, Address sum_scale, Address sum_shift,
                                   int64_t outer, int64_t channels, int64_t inner, int activation, int threads) {
  require_threads(threads);
  if (!check_bwd_sums(grad_nominal, grad_radius, nominal, radius, scale, shift, sum_scale, sum_shift, outer, channels,
                      inner, activation))
    return;
  std::vector<double> scratch(2 * channels * threads);
  dispatch_storage(dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    singleprop_norm_relu<S>().backward_sums(in<S>(grad_nominal), in<S>(grad_radius), in<S>(nominal), in<S>(radius),
                                            in<T>(scale), in<T>(shift), out<T>(sum_scale), out<T>(sum_shift),
                                            scratch.data(), outer, channels, inner, activation, threads);
  });
}

void singleprop_norm_relu_bwd(int dtype, Address grad_nominal, Address grad_radius, Address nominal, Address radius,
                              Address scale, Address shift, Address nominal_mul, Address nominal_add,
                              Address out_grad_nominal, Address out_grad_radius, int64_t outer, int64_t channels,
                              int64_t inner, int activation, int threads) {
  require_threads(threads);
  if (!check_bwd(grad_nominal, grad_radius, nominal, radius, scale, shift, nominal_mul, nominal_add, out_grad_nominal,
                 out_grad_radius, outer, channels, inner, activation))
    return;
  dispatch_storage(dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    singleprop_norm_relu<S>().backward(in<S>(grad_nominal), in<S>(grad_radius), in<S>(nominal), in<S>(radius),
                                       in<T>(scale), in<T>(shift), in<T>(nominal_mul), in<T>(nominal_add),
                                       out<S>(out_grad_nominal), out<S>(out_grad_radius), outer, channels, inner,
                                       activation, threads);
  });
}

#ifdef FASTBOUND_WITH_CUDA
void singleprop_norm_relu_fwd_cuda(int dtype, Address nominal, Address radius, Address scale, Address shift,
                                   Address out_nominal, Address out_radius, int64_t outer, int64_t channels,
                                   int64_t inner, int activation, Address stream, int device) {
  if (!check_fwd(nominal, radius, scale, shift, out_nominal, out_radius, outer, channels, inner, activation)) return;
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    using A = cuda::Compute<S>;
    cuda::singleprop_norm_relu_fwd_launch<S>(in<S>(nominal), in<S>(radius), in<A>(scale), in<A>(shift),
                                             out<S>(out_nominal), out<S>(out_radius), outer, channels, inner,
                                             activation, reinterpret_cast<cudaStream_t>(stream), device);
  });
}

void singleprop_norm_relu_bwd_sums_cuda(int dtype, Address grad_nominal, Address grad_radius, Address nominal,
                                        Address radius, Address scale, Address shift, Address sum_scale,
                                        Address sum_shift, int64_t outer, int64_t channels, int64_t inner,
                                        int activation, Address workspace, Address stream, int device) {
  if (!check_bwd_sums(grad_nominal, grad_radius, nominal, radius, scale, shift, sum_scale, sum_shift, outer, channels,
                      inner, activation))
    return;
  if (outer > 0 && inner > 0) require_pointer(workspace, "workspace");
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    using A = cuda::Compute<S>;
    cuda::singleprop_norm_relu_bwd_sums_launch<S>(in<S>(grad_nominal), in<S>(grad_radius), in<S>(nominal),
                                                  in<S>(radius), in<A>(scale), in<A>(shift), out<A>(sum_scale),
                                                  out<A>(sum_shift), out<double>(workspace), outer, channels, inner,
                                                  activation, reinterpret_cast<cudaStream_t>(stream), device);
  });
}

void singleprop_norm_relu_bwd_cuda(int dtype, Address grad_nominal, Address grad_radius, Address nominal,
                                   Address radius, Address scale, Address shift, Address nominal_mul,
                                   Address nominal_add, Address out_grad_nominal, Address out_grad_radius,
                                   int64_t outer, int64_t channels, int64_t inner, int activation, Address stream,
                                   int device) {
  if (!check_bwd(grad_nominal, grad_radius, nominal, radius, scale, shift, nominal_mul, nominal_add, out_grad_nominal,
                 out_grad_radius, outer, channels, inner, activation))
    return;
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    using A = cuda::Compute<S>;
    cuda::singleprop_norm_relu_bwd_launch<S>(in<S>(grad_nominal), in<S>(grad_radius), in<S>(nominal), in<S>(radius),
                                             in<A>(scale), in<A>(shift), in<A>(nominal_mul), in<A>(nominal_add),
                                             out<S>(out_grad_nominal), out<S>(out_grad_radius), outer, channels, inner,
                                             activation, reinterpret_cast<cudaStream_t>(stream), device);
  });
}
#endif

}  // namespace

void bind_singleprop_norm_relu(pybind11::module_& m) {
  using pybind11::arg;
  m.def("singleprop_norm_relu_fwd", singleprop_norm_relu_fwd, arg("dtype"), arg("nominal"), arg("radius"), arg("scale"),
        arg("shift"), arg("out_nominal"), arg("out_radius"), arg("outer"), arg("channels"), arg("inner"),
        arg("activation"), arg("threads"), NoGil());
  m.def("singleprop_norm_relu_bwd_sums", singleprop_norm_relu_bwd_sums, arg("dtype"), arg("grad_nominal"),
        arg("grad_radius"), arg("nominal"), arg("radius"), arg("scale"), arg("shift"), arg("sum_scale"),
        arg("sum_shift"), arg("outer"), arg("channels"), arg("inner"), arg("activation"), arg("threads"), NoGil());
  m.def("singleprop_norm_relu_bwd", singleprop_norm_relu_bwd, arg("dtype"), arg("grad_nominal"), arg("grad_radius"),
        arg("nominal"), arg("radius"), arg("scale"), arg("shift"), arg("nominal_mul"), arg("nominal_add"),
        arg("out_grad_nominal"), arg("out_grad_radius"), arg("outer"), arg("channels"), arg("inner"), arg("activation"),
        arg("threads"), NoGil());
#ifdef FASTBOUND_WITH_CUDA
  m.def("singleprop_norm_relu_bwd_sums_workspace", cuda::channel_sums_workspace, arg("dtype"), arg("outer"),
        arg("channels"), arg("inner"));
  m.def("singleprop_norm_relu_fwd_cuda", singleprop_norm_relu_fwd_cuda, arg("dtype"), arg("nominal"), arg("radius"),
        arg("scale"), arg("shift"), arg("out_nominal"), arg("out_radius"), arg("outer"), arg("channels"), arg("inner"),
        arg("activation"), arg("stream"), arg("device"), NoGil());
  m.def("singleprop_norm_relu_bwd_sums_cuda", singleprop_norm_relu_bwd_sums_cuda, arg("dtype"), arg("grad_nominal"),
        arg("grad_radius"), arg("nominal"), arg("radius"), arg("scale"), arg("shift"), arg("sum_scale"),
        arg("sum_shift"), arg("outer"), arg("channels"), arg("inner"), arg("activation"), arg("workspace"),
        arg("stream"), arg("device"), NoGil());
  m.def("singleprop_norm_relu_bwd_cuda", singleprop_norm_relu_bwd_cuda, arg("dtype"), arg("grad_nominal"),
        arg("grad_radius"), arg("nominal"), arg("radius"), arg("scale"), arg("shift"), arg("nominal_mul"),
        arg("nominal_add"), arg("out_grad_nominal"), arg("out_grad_radius"), arg("outer"), arg("channels"),
        arg("inner"), arg("activation"), arg("stream"), arg("device"), NoGil());
#endif
}

}  // namespace fastbound
