// The pybind11 module: it binds the passes that passes.h lists.
#include "bind.h"
#include "passes.h"

#ifdef FASTBOUND_WITH_CUDA
namespace fastbound {
namespace cuda {
std::string device_problem(int device);  // device.cu
}  // namespace cuda
}  // namespace fastbound
#endif
#ifndef FASTBOUND_CUDA_ARCHS
#define FASTBOUND_CUDA_ARCHS ""
#endif

PYBIND11_MODULE(_C, m) {
  pybind11::options options;
  options.disable_function_signatures();
  m.doc() = "fastbound's native passes on tensors. fastbound.native is the place that calls them.";
#ifdef FASTBOUND_WITH_CUDA
  m.attr("built_with_cuda") = true;
  m.def("cuda_problem", fastbound::cuda::device_problem, pybind11::arg("device"));
#else
  m.attr("built_with_cuda") = false;
  m.def(
      "cuda_problem",
      [](int) { return std::string("fastbound was built without CUDA; rebuild with FASTBOUND_CUDA=on"); },
      pybind11::arg("device"));
#endif
  const pybind11::str archs(FASTBOUND_CUDA_ARCHS);
  m.attr("cuda_archs") = pybind11::len(archs) == 0 ? pybind11::tuple() : pybind11::tuple(archs.attr("split")(","));
  m.attr("isa") = fastbound::isa_name(fastbound::active_isa());
  m.attr("passes") = pybind11::dict();
#define FASTBOUND_BIND(Pass) fastbound::bind<fastbound::Pass>(m);
  FASTBOUND_FOR_EACH_PASS(FASTBOUND_BIND)
#undef FASTBOUND_BIND
}
