// The part of DLPack's ABI (version 1, https://dmlc.github.io/dlpack) through which torch shows its tensors.
#pragma once

#include <cstdint>

namespace fastbound::dlpack {

enum DeviceType : std::int32_t { kCpu = 1, kCuda = 2 };
enum TypeCode : std::uint8_t { kInt = 0, kFloat = 2, kBfloat = 4 };

struct Device {
  std::int32_t type, id;
};

struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t *shape, *strides;  // strides in elements
  std::uint64_t byte_offset;
};

struct Version {
  std::uint32_t major, minor;
};

struct ManagedTensor {
  Version version;
  void* manager_context;
  void (*deleter)(ManagedTensor* self);
  std::uint64_t flags;
  Tensor tensor;
};

// Functions that return int have set a Python error unless it is 0.
struct ExchangeApi {
  Version version;
  ExchangeApi* previous;
  int (*allocate)(Tensor* like, ManagedTensor** out, void* context,
                  void (*set_error)(void* context, const char* kind, const char* message));
  int (*from_py_object)(void* object, ManagedTensor** out);
  int (*to_py_object)(ManagedTensor* tensor, void** out);
  int (*view)(void* object, Tensor* out);  // valid while the object lives unchanged
  int (*current_stream)(std::int32_t device_type, std::int32_t device_id, void** out);
};

}  // namespace fastbound::dlpack
