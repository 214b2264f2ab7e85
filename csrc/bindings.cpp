// The pybind11 module. Never edited for a new operator: it binds what ops.def lists.
#include <pybind11/pybind11.h>

#include <string>

#include "isa.h"
#ifdef FASTBOUND_WITH_CUDA
#include "cuda/device.cuh"
#endif

#ifndef FASTBOUND_CUDA_ARCHS
#define FASTBOUND_CUDA_ARCHS ""
#endif

#define FASTBOUND_OP(stem) void bind_##stem(pybind11::module_& m);
namespace fastbound {
#include "ops.def"
}
#undef FASTBOUND_OP

PYBIND11_MODULE(_C, m) {
  m.doc() = "fastbound's native passes on raw pointers. fastbound.native is the place that calls them.";
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
#define FASTBOUND_OP(stem) fastbound::bind_##stem(m);
#include "ops.def"
#undef FASTBOUND_OP
}
