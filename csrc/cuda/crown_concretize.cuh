// Launchers work on the given stream and device, do not synchronise and allocate nothing.
#pragma once

#include "cuda/launch.cuh"
#include "cuda/storage.h"
#include "sweep.h"

namespace fastbound {
namespace cuda {

template <typename S>
void crown_concretize_fwd_launch(const S* rows,                     // [B, S, D]
                                 const S* center, const S* radius,  // [B, D]
                                 S* out,                            // [B, S]
                                 double* workspace,                 // [B, S, tiles]
                                 Index batch, Index functions, Index size, cudaStream_t stream, int device);

template <typename S>
void crown_concretize_bwd_launch(const S* grad,                     // [B, S]
                                 const S* rows,                     // [B, S, D]
                                 const S* center, const S* radius,  // [B, D]
                                 S* out_rows,                       // [B, S, D] or null
                                 S* out_center, S* out_radius,      // [B, D], both or neither
                                 Index batch, Index functions, Index size, cudaStream_t stream, int device);

}  // namespace cuda
}  // namespace fastbound
