// Host side: checks and dtype. No arithmetic.
#include "interval_norm_relu_moments.h"

#include <vector>

#include "cpu/interval_norm_relu_moments_cpu.h"
#include "interval_norm_relu_checks.h"
#include "isa.h"

namespace fastbound {

FASTBOUND_DECLARE_CPU(IntervalNormReluMoments, interval_norm_relu_moments)

namespace {

void check_moments(Address grad_moments, Address moments) {
  require_pointer(grad_moments, "grad_moments");
  require_pointer(moments, "moments");
}

void interval_norm_relu_moments_fwd(int dtype, Address stack, Address radius, Address scale, Address shift,
                                    Address out_stack, Address out_radius, Address moments, int streams, int64_t outer,
                                    int64_t channels, int64_t inner, double slope, int threads) {
  require_threads(threads);
  require_pointer(moments, "moments");
  // An empty map has moments too: zeros.
  if (check_shape(outer, channels, inner))
    check_fwd(stack, radius, scale, shift, out_stack, out_radius, streams, outer, channels, inner, slope);
  std::vector<double> scratch(kMoments * threads);
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    interval_norm_relu_moments<T>().forward(in<T>(stack), in<T>(radius), in<T>(scale), in<T>(shift), out<T>(out_stack),
                                            out<T>(out_radius), out<T>(moments), scratch.data(), streams, outer,
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
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    interval_norm_relu_moments<T>().backward_sums(in<T>(grad_stack), in<T>(grad_radius), in<T>(grad_moments),
                                                  in<T>(moments), in<T>(stack), in<T>(radius), in<T>(scale),
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
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    interval_norm_relu_moments<T>().backward(
        in<T>(grad_stack), in<T>(grad_radius), in<T>(grad_moments), in<T>(moments), in<T>(stack), in<T>(radius),
        in<T>(scale), in<T>(shift), in<T>(nominal_mul), in<T>(nominal_add), out<T>(out_grad_stack),
        out<T>(out_grad_radius), streams, outer, channels, inner, static_cast<T>(slope), threads);
  });
}

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
}

}  // namespace fastbound
