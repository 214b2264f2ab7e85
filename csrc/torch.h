// Torch, as far as passes need it: views of its tensors, its threads and streams, and memory from its allocator.
#pragma once

#include <pybind11/gil_safe_call_once.h>
#include <pybind11/pybind11.h>

#include "dlpack.h"
#include "sweep.h"

namespace fastbound {

// Found in the running interpreter, not at build time: one build serves every release from 2.10 on.
class Torch {
 public:
  static const Torch& get() {
    PYBIND11_CONSTINIT static pybind11::gil_safe_call_once_and_store<Torch> torch;
    return torch.call_once_and_store_result([] { return Torch(); }).get_stored();
  }

  bool is_tensor(PyObject* object) const { return PyObject_TypeCheck(object, type_); }

  // Raises for tensors without memory, such as those of a compiler.
  dlpack::Tensor view(PyObject* tensor) const {
    dlpack::Tensor view;
    if (api_->view(tensor, &view) != 0) throw pybind11::error_already_set();
    view.data = static_cast<char*>(view.data) + view.byte_offset;
    return view;
  }

  int threads() const { return threads_().cast<int>(); }

  // The current stream of a GPU.
  void* stream(dlpack::Device device) const {
    void* stream = nullptr;
    if (api_->current_stream(device.type, device.id, &stream) != 0) throw pybind11::error_already_set();
    return stream;
  }

  // Memory of the caching allocator, of the current stream like every tensor: a CUDA graph can record its use.
  dlpack::ManagedTensor* allocate(Index doubles, dlpack::Device device) const {
    dlpack::Tensor like{nullptr, device, 1, {dlpack::kFloat, 64, 1}, &doubles, nullptr, 0};
    dlpack::ManagedTensor* memory = nullptr;
    const auto set_error = [](void*, const char*, const char* message) {
      PyErr_SetString(PyExc_RuntimeError, message);
    };
    if (api_->allocate(&like, &memory, nullptr, set_error) != 0) throw pybind11::error_already_set();
    return memory;
  }

 private:
  Torch() {
    const pybind11::module_ torch = pybind11::module_::import("torch");
    const pybind11::object tensor = torch.attr("Tensor");
    type_ = reinterpret_cast<PyTypeObject*>(tensor.ptr());
    threads_ = torch.attr("get_num_threads");
    const pybind11::capsule capsule = tensor.attr("__dlpack_c_exchange_api__");
    api_ = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    while (api_ != nullptr && api_->version.major > 1) api_ = api_->previous;
    if (api_ == nullptr || api_->version.major != 1 || api_->view == nullptr)
      throw pybind11::import_error("fastbound reads tensors by version 1 of DLPack's C API, which this torch lacks");
  }

  PyTypeObject* type_;
  pybind11::object threads_;
  const dlpack::ExchangeApi* api_;
};

}  // namespace fastbound
