#include "cuda/launch.cuh"

namespace fastbound {
namespace cuda {
namespace {

// Never launched: by its attributes the runtime reports whether the module holds code for a device.
__global__ void probe_kernel() {}

std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

}  // namespace

// Why the kernels of this build cannot run on a device (driver too old, no code for it), or an empty string.
std::string device_problem(int device) {
  int driver = 0, count = 0;
  cudaDriverGetVersion(&driver);
  if (driver == 0) return "there is no CUDA driver";
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorInsufficientDriver)
    return "the driver serves CUDA " + version(driver) + ", the kernels were built with " + version(CUDART_VERSION) +
           "; update the driver, or rebuild with an older nvcc";
  if (error != cudaSuccess) return cudaGetErrorString(error);
  if (device < 0 || device >= count) return "there is no device " + std::to_string(device);
  try {
    const DeviceGuard guard(device);
    int major = 0, minor = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "compute capability");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "compute capability");
    cudaFuncAttributes attributes;
    const cudaError_t code = cudaFuncGetAttributes(&attributes, probe_kernel);
    if (code == cudaSuccess) return "";
    cudaGetLastError();
    return "device " + std::to_string(device) + " has compute capability " + std::to_string(major) + "." +
           std::to_string(minor) + ", for which the kernels of this build have no code (" + cudaGetErrorString(code) +
           ")";
  } catch (const std::exception& problem) {
    return problem.what();
  }
}

}  // namespace cuda
}  // namespace fastbound
