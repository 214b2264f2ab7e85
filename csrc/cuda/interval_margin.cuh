// Column i of a [B, K-1] array belongs to the i-th class other than the sample's label, in increasing order. A label
// outside [0, K) makes everything that depends on its sample NaN. Launchers work on the given stream and device, do not
// synchronise and allocate nothing.
#pragma once

#include "cuda/launch.cuh"
#include "cuda/storage.h"
#include "sweep.h"

namespace fastbound {
namespace cuda {

template <typename S>
void interval_margin_fwd_launch(const S* radius,      // [B, D]
                                const S* weight,      // [K, D]
                                const Index* labels,  // [B]
                                S* out,               // [B, K-1]
                                Index batch, Index features, Index classes, cudaStream_t stream, int device);

// Samples whose terms of grad_weight one block adds up.
constexpr Index kMarginSamples = 16;

template <typename S>
void interval_margin_bwd_launch(const S* grad,        // [B, K-1]
                                const S* radius,      // [B, D]
                                const S* weight,      // [K, D]
                                const Index* labels,  // [B]
                                S* grad_radius,       // [B, D] or null
                                S* grad_weight,       // [K, D] or null
                                double* workspace,    // [ceil(B / kMarginSamples), K, D], if grad_weight is asked for
                                Index batch, Index features, Index classes, cudaStream_t stream, int device);

}  // namespace cuda
}  // namespace fastbound
