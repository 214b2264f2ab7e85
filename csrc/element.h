// The types of elements as DLPack numbers them, and as error messages name them.
#pragma once

#include <string>

#include "dlpack.h"
#include "storage.h"
#ifdef FASTBOUND_WITH_CUDA
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace fastbound {

template <typename E>
constexpr dlpack::DataType kElement = {};
template <>
constexpr dlpack::DataType kElement<float> = {dlpack::kFloat, 32, 1};
template <>
constexpr dlpack::DataType kElement<double> = {dlpack::kFloat, 64, 1};
template <>
constexpr dlpack::DataType kElement<BFloat16> = {dlpack::kBfloat, 16, 1};
template <>
constexpr dlpack::DataType kElement<std::int64_t> = {dlpack::kInt, 64, 1};
#ifdef FASTBOUND_WITH_CUDA
template <>
constexpr dlpack::DataType kElement<__half> = {dlpack::kFloat, 16, 1};
template <>
constexpr dlpack::DataType kElement<__nv_bfloat16> = {dlpack::kBfloat, 16, 1};
#endif

inline bool operator==(dlpack::DataType a, dlpack::DataType b) {
  return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes;
}
inline bool operator==(dlpack::Device a, dlpack::Device b) { return a.type == b.type && a.id == b.id; }

inline std::string name_of(dlpack::DataType type) {
  const char* kinds[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  return (type.code < 7 ? kinds[type.code] : "type") + std::to_string(type.bits);
}

inline std::string name_of(dlpack::Device device) {
  if (device.type == dlpack::kCpu) return "cpu";
  return (device.type == dlpack::kCuda ? "cuda:" : "device ") + std::to_string(device.id);
}

}  // namespace fastbound
