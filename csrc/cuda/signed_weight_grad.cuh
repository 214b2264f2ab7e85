#pragma once

#include "cuda/launch.cuh"
#include "cuda/storage.h"
#include "sweep.h"

namespace fastbound {
namespace cuda {

template <typename S>
void signed_weight_grad_launch(Compute<S>* sum,    // [n], may be grad
                               const S* grad,      // [n]
                               const S* grad_abs,  // [n]
                               const S* weight,    // [n]
                               Index n, cudaStream_t stream, int device);

}  // namespace cuda
}  // namespace fastbound
