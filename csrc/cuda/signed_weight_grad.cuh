#pragma once

#include "cuda/launch.cuh"

namespace fastbound {
namespace cuda {

template <typename T>
void signed_weight_grad_launch(T* grad,            // [n], read and written
                               const T* grad_abs,  // [n]
                               const T* weight,    // [n]
                               Index n, cudaStream_t stream, int device);

}  // namespace cuda
}  // namespace fastbound
