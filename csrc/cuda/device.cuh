#pragma once

#include <string>

namespace fastbound {
namespace cuda {

// Why the kernels of this build cannot run on a device (driver too old, no code for it), or an empty string.
std::string device_problem(int device);

}  // namespace cuda
}  // namespace fastbound
