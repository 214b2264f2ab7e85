#include "cuda/signed_weight_grad.cuh"
#include "signed_weight_grad.h"

namespace fastbound {
namespace cuda {
namespace {

template <typename T>
__global__ void signed_weight_grad_kernel(T* __restrict__ grad,            // [n]
                                          const T* __restrict__ grad_abs,  // [n]
                                          const T* __restrict__ weight,    // [n]
                                          Index n) {
  const Index step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step)
    grad[i] = add_signed(grad[i], grad_abs[i], weight[i]);
}

}  // namespace

template <typename T>
void signed_weight_grad_launch(T* grad, const T* grad_abs, const T* weight, Index n, cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  signed_weight_grad_kernel<<<blocks_for(n), 256, 0, stream>>>(grad, grad_abs, weight, n);
  check(cudaGetLastError(), "signed_weight_grad");
}

template void signed_weight_grad_launch(float*, const float*, const float*, Index, cudaStream_t, int);
template void signed_weight_grad_launch(double*, const double*, const double*, Index, cudaStream_t, int);

}  // namespace cuda
}  // namespace fastbound
