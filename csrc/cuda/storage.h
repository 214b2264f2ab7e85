// The types that maps are stored in on a device, by the dtype codes of fastbound/native.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <stdexcept>
#include <string>

#include "compute.h"

namespace fastbound {
namespace cuda {

using fastbound::Compute;

// Elements of a pack, the 16 bytes that a thread reads at once.
template <typename S>
constexpr int kPack = 16 / sizeof(S);

// Calls work(S()) with the storage type of a code.
template <typename Work>
auto dispatch(int dtype, Work work) {
  switch (dtype) {
    case 0:
      return work(float());
    case 1:
      return work(double());
    case 2:
      return work(__half());
    case 3:
      return work(__nv_bfloat16());
    default:
      throw std::invalid_argument("dtype must be 0 (float32), 1 (float64), 2 (float16) or 3 (bfloat16), got " +
                                  std::to_string(dtype));
  }
}

#define FASTBOUND_FOR_EACH_STORAGE(instantiate) \
  instantiate(float) instantiate(double) instantiate(__half) instantiate(__nv_bfloat16)

}  // namespace cuda
}  // namespace fastbound
