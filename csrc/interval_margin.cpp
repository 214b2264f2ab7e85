// Host side: checks, dtype and device. No arithmetic.
#include "cpu/interval_margin_cpu.h"
#include "host.h"
#include "isa.h"
#ifdef FASTBOUND_WITH_CUDA
#include "cuda/interval_margin.cuh"
#endif

namespace fastbound {

FASTBOUND_DECLARE_CPU(IntervalMargin, interval_margin)

namespace {

using std::int64_t;

void check_sizes(int64_t batch, int64_t features, int64_t classes) {
  require_size(batch, "batch");
  require_size(features, "features");
  if (classes < 1) throw std::invalid_argument("classes must be at least 1, got " + std::to_string(classes));
}

// Labels are indices into weight, so a wrong one would read foreign memory.
void check_labels(const int64_t* labels, int64_t batch, int64_t classes) {
  for (int64_t b = 0; b < batch; ++b)
    if (labels[b] < 0 || labels[b] >= classes)
      throw std::invalid_argument("labels[" + std::to_string(b) + "] must lie in [0, " + std::to_string(classes) +
                                  "), got " + std::to_string(labels[b]));
}

// Checks the arguments; true if there is something to do.
bool check_fwd(Address radius, Address weight, Address labels, Address out, int64_t batch, int64_t features,
               int64_t classes) {
  check_sizes(batch, features, classes);
  if (batch == 0) return false;
  require_pointer(labels, "labels");
  if (classes > 1) require_pointer(out, "out");
  if (features > 0) {
    require_pointer(radius, "radius");
    require_pointer(weight, "weight");
  }
  return true;
}

bool check_bwd(Address grad, Address radius, Address weight, Address labels, Address grad_radius, Address grad_weight,
               int64_t batch, int64_t features, int64_t classes) {
  check_sizes(batch, features, classes);
  if (features == 0 || (grad_radius == 0 && grad_weight == 0)) return false;
  require_pointer(weight, "weight");
  if (batch > 0) {
    require_pointer(radius, "radius");
    require_pointer(labels, "labels");
    if (classes > 1) require_pointer(grad, "grad");
  }
  return true;
}

void interval_margin_fwd(int dtype, Address radius, Address weight, Address labels, Address out_margins, int64_t batch,
                         int64_t features, int64_t classes, int threads) {
  require_threads(threads);
  if (!check_fwd(radius, weight, labels, out_margins, batch, features, classes)) return;
  check_labels(in<int64_t>(labels), batch, classes);
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    interval_margin<T>().forward(in<T>(radius), in<T>(weight), in<int64_t>(labels), out<T>(out_margins), batch,
                                 features, classes, threads);
  });
}

void interval_margin_bwd(int dtype, Address grad, Address radius, Address weight, Address labels, Address grad_radius,
                         Address grad_weight, int64_t batch, int64_t features, int64_t classes, int threads) {
  require_threads(threads);
  if (!check_bwd(grad, radius, weight, labels, grad_radius, grad_weight, batch, features, classes)) return;
  check_labels(in<int64_t>(labels), batch, classes);
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    interval_margin<T>().backward(in<T>(grad), in<T>(radius), in<T>(weight), in<int64_t>(labels), out<T>(grad_radius),
                                  out<T>(grad_weight), batch, features, classes, threads);
  });
}

#ifdef FASTBOUND_WITH_CUDA
// Size, in doubles, of the workspace that a launch needs for the gradient of the weight.
int64_t interval_margin_bwd_workspace(int /* dtype */, int64_t batch, int64_t features, int64_t classes) {
  return ceil_div(batch, cuda::kMarginSamples) * classes * features;
}

// Labels lie on the device and cannot be checked without a synchronisation: a wrong one gives NaN in its row.
void interval_margin_fwd_cuda(int dtype, Address radius, Address weight, Address labels, Address out_margins,
                              int64_t batch, int64_t features, int64_t classes, Address stream, int device) {
  if (!check_fwd(radius, weight, labels, out_margins, batch, features, classes)) return;
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    cuda::interval_margin_fwd_launch<S>(in<S>(radius), in<S>(weight), in<int64_t>(labels), out<S>(out_margins), batch,
                                        features, classes, reinterpret_cast<cudaStream_t>(stream), device);
  });
}

void interval_margin_bwd_cuda(int dtype, Address grad, Address radius, Address weight, Address labels,
                              Address grad_radius, Address grad_weight, int64_t batch, int64_t features,
                              int64_t classes, Address workspace, Address stream, int device) {
  if (!check_bwd(grad, radius, weight, labels, grad_radius, grad_weight, batch, features, classes)) return;
  if (grad_weight != 0 && batch > 0) require_pointer(workspace, "workspace");
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    cuda::interval_margin_bwd_launch<S>(in<S>(grad), in<S>(radius), in<S>(weight), in<int64_t>(labels),
                                        out<S>(grad_radius), out<S>(grad_weight), out<double>(workspace), batch,
                                        features, classes, reinterpret_cast<cudaStream_t>(stream), device);
  });
}
#endif

}  // namespace

void bind_interval_margin(pybind11::module_& m) {
  using pybind11::arg;
  m.def("interval_margin_fwd", interval_margin_fwd, arg("dtype"), arg("radius"), arg("weight"), arg("labels"),
        arg("out"), arg("batch"), arg("features"), arg("classes"), arg("threads"), NoGil());
  m.def("interval_margin_bwd", interval_margin_bwd, arg("dtype"), arg("grad"), arg("radius"), arg("weight"),
        arg("labels"), arg("grad_radius"), arg("grad_weight"), arg("batch"), arg("features"), arg("classes"),
        arg("threads"), NoGil());
#ifdef FASTBOUND_WITH_CUDA
  m.def("interval_margin_fwd_cuda", interval_margin_fwd_cuda, arg("dtype"), arg("radius"), arg("weight"), arg("labels"),
        arg("out"), arg("batch"), arg("features"), arg("classes"), arg("stream"), arg("device"), NoGil());
  m.def("interval_margin_bwd_cuda", interval_margin_bwd_cuda, arg("dtype"), arg("grad"), arg("radius"), arg("weight"),
        arg("labels"), arg("grad_radius"), arg("grad_weight"), arg("batch"), arg("features"), arg("classes"),
        arg("workspace"), arg("stream"), arg("device"), NoGil());
  m.def("interval_margin_bwd_workspace", interval_margin_bwd_workspace, arg("dtype"), arg("batch"), arg("features"),
        arg("classes"));
#endif
}

}  // namespace fastbound
