// Host side: checks, dtype and device. No arithmetic.
#include <vector>

#include "cpu/interval_norm_relu_cpu.h"
#include "interval_norm_relu_checks.h"
#include "isa.h"
#ifdef FASTBOUND_WITH_CUDA
#include "cuda/interval_norm_relu.cuh"
#endif

namespace fastbound {

FASTBOUND_DECLARE_CPU(IntervalNormRelu, interval_norm_relu)

namespace {

using std::int64_t;

void check_statistics(Address x, Address mean, Address var, int64_t outer, int64_t channels, int64_t inner) {
  check_shape(outer, channels, inner);
  if (channels == 0) return;
  require(outer > 0 && inner > 0, "norm_statistics needs at least one value per channel");
  require_pointer(x, "x");
  require_pointer(mean, "mean");
  require_pointer(var, "var");
}

void norm_statistics(int dtype, Address x, Address mean, Address var, int64_t outer, int64_t channels, int64_t inner,
                     int threads) {
  require_threads(threads);
  check_statistics(x, mean, var, outer, channels, inner);
  if (channels == 0) return;
  std::vector<double> scratch(2 * channels * threads);
  dispatch_storage(dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    interval_norm_relu<S>().statistics(in<S>(x), out<T>(mean), out<T>(var), scratch.data(), outer, channels, inner,
                                       threads);
  });
}

void interval_norm_relu_fwd(int dtype, Address stack, Address radius, Address scale, Address shift, Address out_stack,
                            Address out_radius, int streams, int64_t outer, int64_t channels, int64_t inner,
                            double slope, int threads) {
  require_threads(threads);
  if (!check_fwd(stack, radius, scale, shift, out_stack, out_radius, streams, outer, channels, inner, slope)) return;
  dispatch_storage(dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    interval_norm_relu<S>().forward(in<S>(stack), in<S>(radius), in<T>(scale), in<T>(shift), out<S>(out_stack),
                                    out<S>(out_radius), streams, outer, channels, inner, static_cast<T>(slope),
                                    threads);
  });
}

void interval_norm_relu_bwd_sums(int dtype, Address grad_stack, Address grad_radius, Address stack, Address radius,
                                 Address scale, Address shift, Address sum_scale, Address sum_shift, int streams,
                                 int64_t outer, int64_t channels, int64_t inner, double slope, int threads) {
  require_threads(threads);
  if (!check_bwd_sums(grad_stack, stack, radius, scale, shift, sum_scale, sum_shift, streams, outer, channels, inner,
                      slope))
    return;
  std::vector<double> scratch(2 * channels * threads);
  dispatch_storage(dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    interval_norm_relu<S>().backward_sums(in<S>(grad_stack), in<S>(grad_radius), in<S>(stack), in<S>(radius),
                                          in<T>(scale), in<T>(shift), out<T>(sum_scale), out<T>(sum_shift),
                                          scratch.data(), streams, outer, channels, inner, static_cast<T>(slope),
                                          threads);
  });
}

void interval_norm_relu_bwd(int dtype, Address grad_stack, Address grad_radius, Address stack, Address radius,
                            Address scale, Address shift, Address nominal_mul, Address nominal_add,
                            Address out_grad_stack, Address out_grad_radius, int streams, int64_t outer,
                            int64_t channels, int64_t inner, double slope, int threads) {
  require_threads(threads);
  if (!check_bwd(grad_stack, stack, radius, scale, shift, nominal_mul, nominal_add, out_grad_stack, out_grad_radius,
                 streams, outer, channels, inner, slope))
    return;
  dispatch_storage(dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    interval_norm_relu<S>().backward(in<S>(grad_stack), in<S>(grad_radius), in<S>(stack), in<S>(radius), in<T>(scale),
                                     in<T>(shift), in<T>(nominal_mul), in<T>(nominal_add), out<S>(out_grad_stack),
                                     out<S>(out_grad_radius), streams, outer, channels, inner, static_cast<T>(slope),
                                     threads);
  });
}

#ifdef FASTBOUND_WITH_CUDA
void norm_statistics_cuda(int dtype, Address x, Address mean, Address var, int64_t outer, int64_t channels,
                          int64_t inner, Address workspace, Address stream, int device) {
  check_statistics(x, mean, var, outer, channels, inner);
  if (channels == 0) return;
  require_pointer(workspace, "workspace");
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    using A = cuda::Compute<S>;
    cuda::norm_statistics_launch<S>(in<S>(x), out<A>(mean), out<A>(var), out<double>(workspace), outer, channels, inner,
                                    reinterpret_cast<cudaStream_t>(stream), device);
  });
}

void interval_norm_relu_fwd_cuda(int dtype, Address stack, Address radius, Address scale, Address shift,
                                 Address out_stack, Address out_radius, int streams, int64_t outer, int64_t channels,
                                 int64_t inner, double slope, Address stream, int device) {
  if (!check_fwd(stack, radius, scale, shift, out_stack, out_radius, streams, outer, channels, inner, slope)) return;
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    using A = cuda::Compute<S>;
    cuda::interval_norm_relu_fwd_launch<S>(in<S>(stack), in<S>(radius), in<A>(scale), in<A>(shift), out<S>(out_stack),
                                           out<S>(out_radius), streams, outer, channels, inner, static_cast<A>(slope),
                                           reinterpret_cast<cudaStream_t>(stream), device);
  });
}

void interval_norm_relu_bwd_sums_cuda(int dtype, Address grad_stack, Address grad_radius, Address stack, Address radius,
                                      Address scale, Address shift, Address sum_scale, Address sum_shift, int streams,
                                      int64_t outer, int64_t channels, int64_t inner, double slope, Address workspace,
                                      Address stream, int device) {
  if (!check_bwd_sums(grad_stack, stack, radius, scale, shift, sum_scale, sum_shift, streams, outer, channels, inner,
                      slope))
    return;
  if (outer > 0 && inner > 0) require_pointer(workspace, "workspace");
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    using A = cuda::Compute<S>;
    cuda::interval_norm_relu_bwd_sums_launch<S>(in<S>(grad_stack), in<S>(grad_radius), in<S>(stack), in<S>(radius),
                                                in<A>(scale), in<A>(shift), out<A>(sum_scale), out<A>(sum_shift),
                                                out<double>(workspace), streams, outer, channels, inner,
                                                static_cast<A>(slope), reinterpret_cast<cudaStream_t>(stream), device);
  });
}

void interval_norm_relu_bwd_cuda(int dtype, Address grad_stack, Address grad_radius, Address stack, Address radius,
                                 Address scale, Address shift, Address nominal_mul, Address nominal_add,
                                 Address out_grad_stack, Address out_grad_radius, int streams, int64_t outer,
                                 int64_t channels, int64_t inner, double slope, Address stream, int device) {
  if (!check_bwd(grad_stack, stack, radius, scale, shift, nominal_mul, nominal_add, out_grad_stack, out_grad_radius,
                 streams, outer, channels, inner, slope))
    return;
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    using A = cuda::Compute<S>;
    cuda::interval_norm_relu_bwd_launch<S>(
        in<S>(grad_stack), in<S>(grad_radius), in<S>(stack), in<S>(radius), in<A>(scale), in<A>(shift),
        in<A>(nominal_mul), in<A>(nominal_add), out<S>(out_grad_stack), out<S>(out_grad_radius), streams, outer,
        channels, inner, static_cast<A>(slope), reinterpret_cast<cudaStream_t>(stream), device);
  });
}
#endif

}  // namespace

void bind_interval_norm_relu(pybind11::module_& m) {
  using pybind11::arg;
  m.def("norm_statistics", norm_statistics, arg("dtype"), arg("x"), arg("mean"), arg("var"), arg("outer"),
        arg("channels"), arg("inner"), arg("threads"), NoGil());
  m.def("interval_norm_relu_fwd", interval_norm_relu_fwd, arg("dtype"), arg("stack"), arg("radius"), arg("scale"),
        arg("shift"), arg("out_stack"), arg("out_radius"), arg("streams"), arg("outer"), arg("channels"), arg("inner"),
        arg("slope"), arg("threads"), NoGil());
  m.def("interval_norm_relu_bwd_sums", interval_norm_relu_bwd_sums, arg("dtype"), arg("grad_stack"), arg("grad_radius"),
        arg("stack"), arg("radius"), arg("scale"), arg("shift"), arg("sum_scale"), arg("sum_shift"), arg("streams"),
        arg("outer"), arg("channels"), arg("inner"), arg("slope"), arg("threads"), NoGil());
  m.def("interval_norm_relu_bwd", interval_norm_relu_bwd, arg("dtype"), arg("grad_stack"), arg("grad_radius"),
        arg("stack"), arg("radius"), arg("scale"), arg("shift"), arg("nominal_mul"), arg("nominal_add"),
        arg("out_grad_stack"), arg("out_grad_radius"), arg("streams"), arg("outer"), arg("channels"), arg("inner"),
        arg("slope"), arg("threads"), NoGil());
#ifdef FASTBOUND_WITH_CUDA
  for (const char* name : {"norm_statistics_workspace", "interval_norm_relu_bwd_sums_workspace"})
    m.def(name, cuda::channel_sums_workspace, arg("dtype"), arg("outer"), arg("channels"), arg("inner"));
  m.def("norm_statistics_cuda", norm_statistics_cuda, arg("dtype"), arg("x"), arg("mean"), arg("var"), arg("outer"),
        arg("channels"), arg("inner"), arg("workspace"), arg("stream"), arg("device"), NoGil());
  m.def("interval_norm_relu_fwd_cuda", interval_norm_relu_fwd_cuda, arg("dtype"), arg("stack"), arg("radius"),
        arg("scale"), arg("shift"), arg("out_stack"), arg("out_radius"), arg("streams"), arg("outer"), arg("channels"),
        arg("inner"), arg("slope"), arg("stream"), arg("device"), NoGil());
  m.def("interval_norm_relu_bwd_sums_cuda", interval_norm_relu_bwd_sums_cuda, arg("dtype"), arg("grad_stack"),
        arg("grad_radius"), arg("stack"), arg("radius"), arg("scale"), arg("shift"), arg("sum_scale"), arg("sum_shift"),
        arg("streams"), arg("outer"), arg("channels"), arg("inner"), arg("slope"), arg("workspace"), arg("stream"),
        arg("device"), NoGil());
  m.def("interval_norm_relu_bwd_cuda", interval_norm_relu_bwd_cuda, arg("dtype"), arg("grad_stack"), arg("grad_radius"),
        arg("stack"), arg("radius"), arg("scale"), arg("shift"), arg("nominal_mul"), arg("nominal_add"),
        arg("out_grad_stack"), arg("out_grad_radius"), arg("streams"), arg("outer"), arg("channels"), arg("inner"),
        arg("slope"), arg("stream"), arg("device"), NoGil());
#endif
}

}  // namespace fastbound
