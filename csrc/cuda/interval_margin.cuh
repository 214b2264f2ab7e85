// Column i of a [B, K-1] array belongs to the i-th class other than the sample's label, in increasing order.
// A label out of range reads nothing and gives NaN: labels on the device cannot be checked without a synchronisation.
#pragma once

#include "cuda/launch.cuh"

namespace fastbound {
namespace cuda {

template <typename T>
void interval_margin_fwd_launch(const T* radius,      // [B, D]
                                const T* weight,      // [K, D]
                                const Index* labels,  // [B]
                                T* out,               // [B, K-1]
                                Index batch, Index features, Index classes, cudaStream_t stream, int device);

template <typename T>
void interval_margin_bwd_launch(const T* grad,        // [B, K-1]
                                const T* radius,      // [B, D]
                                const T* weight,      // [K, D]
                                const Index* labels,  // [B]
                                T* grad_radius,       // [B, D] or null
                                T* grad_weight,       // [K, D] or null
                                Index batch, Index features, Index classes, cudaStream_t stream, int device);

}  // namespace cuda
}  // namespace fastbound
