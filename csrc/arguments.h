// Reads the arguments of a pass from Python and checks them: the one place where pointers into tensors come from. That
// the storage of a tensor is as long as its sizes and strides say is trusted, and that its numbers are not lazily
// negated.
#pragma once

#include <cstdio>
#include <initializer_list>
#include <string>

#include "element.h"
#include "pass.h"
#include "torch.h"

namespace fastbound {

using Dims = std::initializer_list<Index>;

// The product of sizes; -1 if that of those that are not 0 is beyond any memory, so that no other product overflows.
inline Index elements(const Index* begin, const Index* end) {
  constexpr Index kMost = Index(1) << 48;
  Index count = 1;
  bool none = false;
  for (; begin != end; ++begin) {
    none = none || *begin == 0;
    if (*begin != 0 && (__builtin_mul_overflow(count, *begin, &count) || count > kMost)) return -1;
  }
  return none ? 0 : count;
}

// Whether a tensor is one dense block of memory that can be split up into `dims`: its own dimensions, in the order of
// their strides, are those, or parts or products of neighbours.
inline bool laid_out(const dlpack::Tensor& tensor, Dims dims) {
  const Index found = elements(tensor.shape, tensor.shape + tensor.ndim), wanted = elements(dims.begin(), dims.end());
  if (found != wanted || wanted <= 0) return found == wanted && wanted == 0;
  constexpr int kMostAxes = 48;                // more axes of two elements and more are beyond kMost
  Index sizes[kMostAxes], strides[kMostAxes];  // from the innermost one on
  int axes = 0;
  for (int i = tensor.ndim - 1; i >= 0; --i) {
    if (tensor.shape[i] == 1) continue;
    int at = axes++;
    for (; at > 0 && strides[at - 1] > tensor.strides[i]; --at) {
      sizes[at] = sizes[at - 1];
      strides[at] = strides[at - 1];
    }
    sizes[at] = tensor.shape[i];
    strides[at] = tensor.strides[i];
  }
  Index inside = 1;
  for (int i = 0; i < axes; inside *= sizes[i++])
    if (strides[i] != inside) return false;
  Index block = 1, reached = 1, before = 1;  // elements of the last dims, of the axes up to them, and of all but one
  int axis = 0;
  for (auto size = dims.end(); size != dims.begin();) {
    block *= *--size;
    for (; reached < block; reached *= sizes[axis++]) before = reached;
    if (reached % block != 0 || block % before != 0) return false;
  }
  return true;
}

template <typename Values>
std::string listed(Values begin, Values end) {
  std::string text = "[";
  for (Values at = begin; at != end; ++at) text += (at == begin ? "" : ", ") + std::to_string(*at);
  return text + "]";
}

inline std::string shown(double number) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", number);
  return text;
}

// The visitor that fills a pass in. What it refuses is named: pass, argument, what was wanted and what came.
class Arguments {
 public:
  Arguments(const char* pass, PyObject* tuple, dlpack::Device device)
      : pass_(pass), tuple_(tuple), count_(PyTuple_GET_SIZE(tuple)), device_(device) {}

  void sizes() const {}
  template <typename... More>
  void sizes(const char* name, Index& value, More&&... more) {
    integer(name, value, 0, INT64_MAX);
    sizes(more...);
  }

  void integer(const char* name, Index& value, Index least, Index most) {
    PyObject* object = next();
    if (!PyLong_Check(object)) refuse(name, "an integer", Py_TYPE(object)->tp_name);
    int beyond = 0;
    value = PyLong_AsLongLongAndOverflow(object, &beyond);
    if (beyond != 0 || value < least || value > most)
      refuse(name,
             most == INT64_MAX ? "a number of at least " + std::to_string(least)
                               : "an integer from " + std::to_string(least) + " to " + std::to_string(most),
             beyond != 0 ? "one beyond 64 bits" : std::to_string(value));
  }

  template <typename T>
  void number(const char* name, T& value, double least, double most) {
    PyObject* object = next();
    if (!PyFloat_Check(object) && !PyLong_Check(object)) refuse(name, "a number", Py_TYPE(object)->tp_name);
    const double given = PyFloat_AsDouble(object);
    const bool beyond = given == -1 && PyErr_Occurred() != nullptr;  // an integer that no double holds
    if (beyond) PyErr_Clear();
    if (beyond || !(given >= least && given <= most))
      refuse(name, "a number in [" + shown(least) + ", " + shown(most) + "]",
             beyond ? "one beyond all doubles" : shown(given));
    value = static_cast<T>(given);
  }

  template <typename E>
  void in(const char* name, const E*& pointer, Dims dims, Need need = kNeeded) {
    pointer = static_cast<const E*>(tensor(name, kElement<E>, dims, need, false, nullptr));
  }
  // `over`: an input whose memory the output may take.
  template <typename E>
  void out(const char* name, E*& pointer, Dims dims, Need need = kNeeded, const void* over = nullptr) {
    pointer = static_cast<E*>(tensor(name, kElement<E>, dims, need, true, over));
  }

  void indices(const char* name, const Index*& pointer, Dims dims, Index first, Index end) {
    in(name, pointer, dims);
    if (device_.type != dlpack::kCpu) return;
    for (Index i = 0; i < elements(dims.begin(), dims.end()); ++i)
      if (pointer[i] < first || pointer[i] >= end)
        refuse(name + ("[" + std::to_string(i) + "]"),
               "an integer from " + std::to_string(first) + " to " + std::to_string(end - 1),
               std::to_string(pointer[i]));
  }

  void require(bool condition, const char* sentence) const {
    if (!condition) throw pybind11::value_error(std::string(pass_) + ": " + sentence);
  }

  // To be called when all fields are read; false if there is nothing to write.
  bool finish() const {
    if (next_ != count_)
      throw pybind11::type_error(std::string(pass_) + " takes " + std::to_string(next_) + " arguments, got " +
                                 std::to_string(count_));
    bool anything = false;
    for (int i = 0; i < blocks_; ++i) {
      const Block& written = memory_[i];
      if (!written.written) continue;
      anything = true;
      for (int j = 0; j < blocks_; ++j) {
        const Block& other = memory_[j];
        const bool same = written.over == other.begin && written.begin == other.begin && written.end == other.end;
        if (i != j && !same && written.begin < other.end && other.begin < written.end)
          refuse(written.name, "memory of its own", std::string("some of that of ") + other.name);
      }
    }
    return anything;
  }

 private:
  struct Block {
    const char *name, *begin, *end;
    const void* over;
    bool written;
  };
  static constexpr int kMostBlocks = 24;

  PyObject* next() {
    if (next_ == count_)
      throw pybind11::type_error(std::string(pass_) + " takes more than " + std::to_string(count_) + " arguments");
    return PyTuple_GET_ITEM(tuple_, next_++);
  }

  void* tensor(const char* name, dlpack::DataType type, Dims dims, Need need, bool written, const void* over) {
    PyObject* object = next();
    if (object == Py_None && need == kOrNull) return nullptr;
    const Torch& torch = Torch::get();
    if (!torch.is_tensor(object)) refuse(name, "a tensor", Py_TYPE(object)->tp_name);
    const dlpack::Tensor view = torch.view(object);
    if (!(view.dtype == type) || !(view.device == device_) || !laid_out(view, dims))
      refuse(name,
             name_of(type) + " " + listed(dims.begin(), dims.end()) + " in one block of memory on " + name_of(device_),
             name_of(view.dtype) + " " + listed(view.shape, view.shape + view.ndim) + " with strides " +
                 listed(view.strides, view.strides + view.ndim) + " on " + name_of(view.device));
    const Index bytes = elements(dims.begin(), dims.end()) * (type.bits / 8);
    if (bytes == 0) return view.data;
    if (view.data == nullptr || reinterpret_cast<std::uintptr_t>(view.data) % (type.bits / 8) != 0)
      refuse(name, "memory at a multiple of its numbers' size",
             view.data == nullptr ? "a tensor without memory" : "an address between two; clone it");
    if (blocks_ == kMostBlocks) throw std::logic_error(std::string(pass_) + " has too many tensors");
    const char* begin = static_cast<const char*>(view.data);
    memory_[blocks_++] = {name, begin, begin + bytes, over, written};
    return view.data;
  }

  [[noreturn]] void refuse(const std::string& name, const std::string& wanted, const std::string& got) const {
    throw pybind11::value_error(std::string(pass_) + ": " + name + ": wanted " + wanted + ", got " + got);
  }

  const char* pass_;
  PyObject* tuple_;
  Py_ssize_t next_ = 0, count_;
  dlpack::Device device_;
  Block memory_[kMostBlocks];
  int blocks_ = 0;
};

}  // namespace fastbound
