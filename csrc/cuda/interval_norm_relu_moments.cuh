// interval_norm_relu with the moments [8] of the bounds that enter the ReLU, as interval_norm_relu.cuh has it. The
// moments are in the type of the computation: half precision would overflow, and cannot count beyond 2048.
#pragma once

#include "cuda/channel_maps.cuh"
#include "cuda/launch.cuh"
#include "interval_norm_relu_moments.h"

namespace fastbound {
namespace cuda {

// Size, in doubles, of the workspace that the forward pass needs: [8, blocks].
inline Index moments_workspace(int dtype, Index outer, Index channels, Index inner) {
  return dispatch(
      dtype, [&](auto zero) { return kMoments * sums_sweep(outer, channels, inner, kPack<decltype(zero)>).blocks(); });
}

template <typename S>
void interval_norm_relu_moments_fwd_launch(const S* stack,                                    // [N, outer, C, inner]
                                           const S* radius,                                   // [outer, C, inner]
                                           const Compute<S>* scale, const Compute<S>* shift,  // [C], or both null: none
                                           S* out_stack,                                      // [N, outer, C, inner]
                                           S* out_radius,                                     // [outer, C, inner]
                                           Compute<S>* moments,                               // [8]
                                           double* workspace, int streams, Index outer, Index channels, Index inner,
                                           Compute<S> slope, cudaStream_t stream, int device);

template <typename S>
void interval_norm_relu_moments_bwd_sums_launch(const S* grad_stack,             // [N, outer, C, inner]
                                                const S* grad_radius,            // or null: zero
                                                const Compute<S>* grad_moments,  // [8]
                                                const Compute<S>* moments,       // [8]
                                                const S* stack,                  // [N, outer, C, inner]
                                                const S* radius,                 // [outer, C, inner]
                                                const Compute<S>* scale, const Compute<S>* shift,  // [C]
                                                Compute<S>* sum_scale, Compute<S>* sum_shift,      // [C]
                                                double* workspace, int streams, Index outer, Index channels,
                                                Index inner, Compute<S> slope, cudaStream_t stream, int device);

template <typename S>
void interval_norm_relu_moments_bwd_launch(const S* grad_stack,                               // [N, outer, C, inner]
                                           const S* grad_radius,                              // or null: zero
                                           const Compute<S>* grad_moments,                    // [8]
                                           const Compute<S>* moments,                         // [8]
                                           const S* stack,                                    // [N, outer, C, inner]
                                           const S* radius,                                   // [outer, C, inner]
                                           const Compute<S>* scale, const Compute<S>* shift,  // [C], or both null: none
                                           const Compute<S>* nominal_mul,                     // [C], both or neither
                                           const Compute<S>* nominal_add,                     // [C]
                                           S* out_grad_stack,                                 // [N, outer, C, inner]
                                           S* out_grad_radius,                                // [outer, C, inner]
                                           int streams, Index outer, Index channels, Index inner, Compute<S> slope,
                                           cudaStream_t stream, int device);

}  // namespace cuda
}  // namespace fastbound
