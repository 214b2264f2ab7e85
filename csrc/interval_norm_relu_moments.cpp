// Host side: checks, dtype and device. No arithmetic.
#include "interval_norm_relu_moments.h"

#include <vector>

#include "cpu/interval_norm_relu_moments_cpu.h"
#include "interval_norm_relu_checks.h"
#include "isa.h"
#ifdef FASTBOUND_WITH_CUDA
#include "cuda/interval_norm_relu_moments.cuh"
#endif

namespace fastbound {

FASTBOUND_DECLARE_CPU(IntervalNormReluMoments, interval_norm_relu_moments)

namespace {

// An empty map has moments too: zeros.
void check_moments_fwd(Address stack, Address radius, Address scale, Address shift, Address out_stack,
                       Address out_radius, Address moments, int streams, int64_t outer, int64_t channels, int64_t inner,
                       double slope) {
  require_pointer(moments, "moments");
  if (check_shape(outer, channels, inner))
    check_fwd(stack, radius, scale, shift, out_stack, out_radius, streams, outer, channels, inner, slope);
}

void check_moments(Address grad_moments, Address moments) {
  require_pointer(grad_moments, "grad_moments");
  require_pointer(moments, "moments");
}

void interval_norm_relu_moments_fwd(int dtype, Address stack, Address radius, Address scale, Address shift,
                                    Address out_stack, Address out_radius, Address moments, int streams, int64_t outer,
                                    int64_t channels, int64_t inner, double slope, int threads) {
  require_threads(threads);
  check_moments_fwd(stack, radius, scale, shift, out_stack, out_radius, moments, streams, outer, channels, inner,
                    slope);
  std::vector<double> scratch(kMoments * threads);
  dispatch_storage(dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    interval_norm_relu_moments<S>().forward(in<S>(stack), in<S>(radius), in<T>(scale), in<T>(shift), out<S>(out_stack),
                                            out<S>(out_radius), out<T>(moments), scratch.data(), streams, outer,
                                            channels, inner, static_cast<T>(slope), threads);
  });
}

void interval_norm_relu_moments_bwd_sums(int dtype, Address grad_stack, Address grad_radius, Address grad_moments,
                                         Address moments, Address stack, Address radius, Address scale, Address shift,
                                         Address sum_scale, Address sum_shift, int streams, int64_t outer,
                                         int64_t channels, int64_t inner, double slope, int threads) {
  require_threads(threads);
  check_moments(grad_moments, moments);
  if (!check_bwd_sums(grad_stack, stack, radius, scale, shift, sum_scale, sum_shift, streams, outer, channels, inner,
                      slope))
    return;
  std::vector<double> scratch(2 * channels * threads);
  dispatch_storage(dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    interval_norm_relu_moments<S>().backward_sums(in<S>(grad_stack), in<S>(grad_radius), in<T>(grad_moments),
                                                  in<T>(moments), in<S>(stack), in<S>(radius), in<T>(scale),
                                                  in<T>(shift), out<T>(sum_scale), out<T>(sum_shift), scratch.data(),
                                                  streams, outer, channels, inner, static_cast<T>(slope), threads);
  });
}

void interval_norm_relu_moments_bwd(int dtype, Address grad_stack, Address grad_radius, Address grad_moments,
                                    Address moments, Address stack, Address radius, Address scale, Address shift,
                                    Address nominal_mul, Address nominal_add, Address out_grad_stack,
                                    Address out_grad_radius, int streams, int64_t outer, int64_t channels,
                                    int64_t inner, double slope, int threads) {
  require_threads(threads);
  check_moments(grad_moments, moments);
  if (!check_bwd(grad_stack, stack, radius, scale, shift, nominal_mul, nominal_add, out_grad_stack, out_grad_radius,
                 streams, outer, channels, inner, slope))
    return;
  dispatch_storage(dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    interval_norm_relu_moments<S>().backward(
        in<S>(grad_stack), in<S>(grad_radius), in<T>(grad_moments), in<T>(moments), in<S>(stack), in<S>(radius),
        in<T>(scale), in<T>(shift), in<T>(nominal_mul), in<T>(nominal_add), out<S>(out_grad_stack),
        out<S>(out_grad_radius), streams, outer, channels, inner, static_cast<T>(slope), threads);
  });
}

#ifdef FASTBOUND_WITH_CUDA
void interval_norm_relu_moments_fwd_cuda(int dtype, Address stack, Address radius, Address scale, Address shift,
                                         Address out_stack, Address out_radius, Address moments, int streams,
                                         int64_t outer, int64_t channels, int64_t inner, double slope,
                                         Address workspace, Address stream, int device) {
  check_moments_fwd(stack, radius, scale, shift, out_stack, out_radius, moments, streams, outer, channels, inner,
                    slope);
  if (check_shape(outer, channels, inner)) require_pointer(workspace, "workspace");
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    using A = cuda::Compute<S>;
    cuda::interval_norm_relu_moments_fwd_launch<S>(
        in<S>(stack), in<S>(radius), in<A>(scale), in<A>(shift), out<S>(out_stack), out<S>(out_radius), out<A>(moments),
        out<double>(workspace), streams, outer, channels, inner, static_cast<A>(slope),
        reinterpret_cast<cudaStream_t>(stream), device);
  });
}

void interval_norm_relu_moments_bwd_sums_cuda(int dtype, Address grad_stack, Address grad_radius, Address grad_moments,
                                              Address moments, Address stack, Address radius, Address scale,
                                              Address shift, Address sum_scale, Address sum_shift, int streams,
                                              int64_t outer, int64_t channels, int64_t inner, double slope,
                                              Address workspace, Address stream, int device) {
  check_moments(grad_moments, moments);
  if (!check_bwd_sums(grad_stack, stack, radius, scale, shift, sum_scale, sum_shift, streams, outer, channels, inner,
                      slope))
    return;
  if (outer > 0 && inner > 0) require_pointer(workspace, "workspace");
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    using A = cuda::Compute<S>;
    cuda::interval_norm_relu_moments_bwd_sums_launch<S>(
        in<S>(grad_stack), in<S>(grad_radius), in<A>(grad_moments), in<A>(moments), in<S>(stack), in<S>(radius),
        in<A>(scale), in<A>(shift), out<A>(sum_scale), out<A>(sum_shift), out<double>(workspace), streams, outer,
        channels, inner, static_cast<A>(slope), reinterpret_cast<cudaStream_t>(stream), device);
  });
}

void interval_norm_relu_moments_bwd_cuda(int dtype, Address grad_stack, Address grad_radius, Address grad_moments,
                                         Address moments, Address stack, Address radius, Address scale, Address shift,
                                         Address nominal_mul, Address nominal_add, Address out_grad_stack,
                                         Address out_grad_radius, int streams, int64_t outer, int64_t channels,
                                         int64_t inner, double slope, Address stream, int device) {
  check_moments(grad_moments, moments);
  if (!check_bwd(grad_stack, stack, radius, scale, shift, nominal_mul, nominal_add, out_grad_stack, out_grad_radius,
                 streams, outer, channels, inner, slope))
    return;
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    using A = cuda::Compute<S>;
    cuda::interval_norm_relu_moments_bwd_launch<S>(
        in<S>(grad_stack), in<S>(grad_radius), in<A>(grad_moments), in<A>(moments), in<S>(stack), in<S>(radius),
        in<A>(scale), in<A>(shift), in<A>(nominal_mul), in<A>(nominal_add), out<S>(out_grad_stack),
        out<S>(out_grad_radius), streams, outer, channels, inner, static_cast<A>(slope),
        reinterpret_cast<cudaStream_t>(stream), device);
  });
}
#endif

}  // namespace

void bind_interval_norm_relu_moments(pybind11::module_& m) {
  using pybind11::arg;
  m.def("interval_norm_relu_moments_fwd", interval_norm_relu_moments_fwd, arg("dtype"), arg("stack"), arg("radius"),
        arg("scale"), arg("shift"), arg("out_stack"), arg("out_radius"), arg("moments"), arg("streams"), arg("outer"),
        arg("channels"), arg("inner"), arg("slope"), arg("threads"), NoGil());
  m.def("interval_norm_relu_moments_bwd_sums", interval_norm_relu_moments_bwd_sums, arg("dtype"), arg("grad_stack"),
        arg("grad_radius"), arg("grad_moments"), arg("moments"), arg("stack"), arg("radius"), arg("scale"),
        arg("shift"), arg("sum_scale"), arg("sum_shift"), arg("streams"), arg("outer"), arg("channels"), arg("inner"),
        arg("slope"), arg("threads"), NoGil());
  m.def("interval_norm_relu_moments_bwd", interval_norm_relu_moments_bwd, arg("dtype"), arg("grad_stack"),
        arg("grad_radius"), arg("grad_moments"), arg("moments"), arg("stack"), arg("radius"), arg("scale"),
        arg("shift"), arg("nominal_mul"), arg("nominal_add"), arg("out_grad_stack"), arg("out_grad_radius"),
        arg("streams"), arg("outer"), arg("channels"), arg("inner"), arg("slope"), arg("threads"), NoGil());
#ifdef FASTBOUND_WITH_CUDA
  m.def("interval_norm_relu_moments_fwd_workspace", cuda::moments_workspace, arg("dtype"), arg("outer"),
        arg("channels"), arg("inner"));
  m.def("interval_norm_relu_moments_bwd_sums_workspace", cuda::channel_sums_workspace, arg("dtype"), arg("outer"),
        arg("channels"), arg("inner"));
  m.def("interval_norm_relu_moments_fwd_cuda", interval_norm_relu_moments_fwd_cuda, arg("dtype"), arg("stack"),
        arg("radius"), arg("scale"), arg("shift"), arg("out_stack"), arg("out_radius"), arg("moments"), arg("streams"),
        arg("outer"), arg("channels"), arg("inner"), arg("slope"), arg("workspace"), arg("stream"), arg("device"),
        NoGil());
  m.def("interval_norm_relu_moments_bwd_sums_cuda", interval_norm_relu_moments_bwd_sums_cuda, arg("dtype"),
        arg("grad_stack"), arg("grad_radius"), arg("grad_moments"), arg("moments"), arg("stack"), arg("radius"),
        arg("scale"), arg("shift"), arg("sum_scale"), arg("sum_shift"), arg("streams"), arg("outer"), arg("channels"),
        arg("inner"), arg("slope"), arg("workspace"), arg("stream"), arg("device"), NoGil());
  m.def("interval_norm_relu_moments_bwd_cuda", interval_norm_relu_moments_bwd_cuda, arg("dtype"), arg("grad_stack"),
        arg("grad_radius"), arg("grad_moments"), arg("moments"), arg("stack"), arg("radius"), arg("scale"),
        arg("shift"), arg("nominal_mul"), arg("nominal_add"), arg("out_grad_stack"), arg("out_grad_radius"),
        arg("streams"), arg("outer"), arg("channels"), arg("inner"), arg("slope"), arg("stream"), arg("device"),
        NoGil());
#endif
}

}  // namespace fastbound
