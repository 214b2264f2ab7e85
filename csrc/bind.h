// From a call in Python to the code of a pass: the type that its maps are stored in and the device are those of the
// first tensor of real numbers; checks, memory for sums, threads or stream, and the pass itself, without the GIL.
#pragma once

#include <memory>

#ifdef FASTBOUND_WITH_CUDA
// Not by "": tests/cuda_on_cpu has its own of both, and comes first on its include path.
#include <workspace.h>

#include <cuda/launch.cuh>
#endif

#include "arguments.h"
#include "isa.h"
#include "pass.h"
#include "signature.h"

namespace fastbound {

#ifdef FASTBOUND_WITH_CUDA
// Defined by the CUDA file of each pass.
namespace cuda {
template <typename Pass>
void run(const Pass& pass, double* workspace, cudaStream_t stream);
}  // namespace cuda

#ifndef FASTBOUND_CUDA_DEVICE
#define FASTBOUND_CUDA_DEVICE kCuda  // the emulated build takes tensors of the processor
#endif
#endif

template <typename P>
void run_on_cpu(const P& pass) {
  const int threads = Torch::get().threads();
  const std::unique_ptr<double[]> scratch(new double[pass.scratch(threads)]);
  const pybind11::gil_scoped_release unlocked;
  run_best(pass, scratch.get(), threads);
}

#ifdef FASTBOUND_WITH_CUDA
template <typename P>
void run_on_gpu(const P& pass, dlpack::Device device) {
  const Workspace workspace(pass.workspace(), device);
  void* stream = Torch::get().stream(device);
  const pybind11::gil_scoped_release unlocked;
  const cuda::DeviceGuard guard(device.id);
  cuda::run(pass, workspace.data(), static_cast<cudaStream_t>(stream));
}
#endif

// Runs the pass whose S is `type`, if it is among `S...`.
template <template <typename> class P, bool kGpu, typename... S>
bool run_as(Types<S...>, dlpack::DataType type, Arguments& arguments, dlpack::Device device) {
  const auto attempt = [&](auto pass) {
    pass.fields(arguments);
    if (!arguments.finish()) return;
    if constexpr (kGpu)
      run_on_gpu(pass, device);
    else
      run_on_cpu(pass);
  };
  return ((type == kElement<S> && (attempt(P<S>{}), true)) || ...);
}

template <template <typename> class P>
void call(PyObject* tuple) {
  using About = P<float>;
  dlpack::Tensor first{};
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple) && (first.shape == nullptr || first.dtype.code == dlpack::kInt);
       ++i)
    if (Torch::get().is_tensor(PyTuple_GET_ITEM(tuple, i))) first = Torch::get().view(PyTuple_GET_ITEM(tuple, i));
  Arguments arguments(About::kName, tuple, first.device);
#ifdef FASTBOUND_WITH_CUDA
  if constexpr (About::kOnCuda)
    if (first.device.type == dlpack::FASTBOUND_CUDA_DEVICE &&
        run_as<P, true>(Types<float, double, __half, __nv_bfloat16>(), first.dtype, arguments, first.device))
      return;
#endif
  if (first.device.type == dlpack::kCpu &&
      run_as<P, false>(typename About::Cpu(), first.dtype, arguments, first.device))
    return;
  throw pybind11::type_error(
      std::string(About::kName) + " has no code for " +
      (first.shape == nullptr ? "a call without tensors" : name_of(first.dtype) + " on " + name_of(first.device)));
}

template <template <typename> class P>
void bind(pybind11::module_& m) {
  Signature signature;
  P<BFloat16>{}.fields(signature);
  const char* name = P<float>::kName;
  const std::string text = std::string(name) + "(" + signature.text() + ", /) -> None";
  m.def(name, [](const pybind11::args& tuple) { call<P>(tuple.ptr()); }, text.c_str());
  m.attr("passes")[name] = signature.fields();
}

}  // namespace fastbound
