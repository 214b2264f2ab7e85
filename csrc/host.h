// Argument checks and dtype dispatch shared by the host files.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "cpu/storage.h"

namespace fastbound {

using Address = std::uintptr_t;  // tensor.data_ptr(); 0 is null

inline void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

inline void require_size(std::int64_t size, const char* name) {
  if (size < 0) throw std::invalid_argument(std::string(name) + " must not be negative, got " + std::to_string(size));
}

inline void require_pointer(Address pointer, const char* name) {
  if (pointer == 0) throw std::invalid_argument(std::string(name) + " is a null pointer");
}

inline void require_threads(int threads) {
  if (threads < 1) throw std::invalid_argument("threads must be at least 1, got " + std::to_string(threads));
}

// Calls work(T()) with T = float for dtype 0 and double for dtype 1.
template <typename Work>
void dispatch(int dtype, Work work) {
  switch (dtype) {
    case 0:
      return work(float());
    case 1:
      return work(double());
    default:
      throw std::invalid_argument("dtype must be 0 (float32) or 1 (float64), got " + std::to_string(dtype));
  }
}

// Calls work(S()) with the type that maps of a dtype are stored in on a CPU.
template <typename Work>
void dispatch_storage(int dtype, Work work) {
  switch (dtype) {
    case 0:
      return work(float());
    case 1:
      return work(double());
    case 3:
      return work(BFloat16());
    default:
      throw std::invalid_argument("dtype must be 0 (float32), 1 (float64) or 3 (bfloat16), got " +
                                  std::to_string(dtype));
  }
}

template <typename T>
const T* in(Address pointer) {
  return reinterpret_cast<const T*>(pointer);
}

template <typename T>
T* out(Address pointer) {
  return reinterpret_cast<T*>(pointer);
}

using NoGil = pybind11::call_guard<pybind11::gil_scoped_release>;

}  // namespace fastbound
