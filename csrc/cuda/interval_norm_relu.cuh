// Memory order of a map: [outer][channels][inner]; a stack is `streams` maps, the nominal one (if any) first.
// Per-channel numbers are in the type of the computation. Launchers work on the given stream and device, do not
// synchronise and allocate nothing.
#pragma once

#include "cuda/channel_maps.cuh"
#include "cuda/launch.cuh"

namespace fastbound {
namespace cuda {

template <typename S>
void norm_statistics_launch(const S* x,                         // [outer, C, inner]
                            Compute<S>* mean, Compute<S>* var,  // [C]
                            double* workspace, Index outer, Index channels, Index inner, cudaStream_t stream,
                            int device);

template <typename S>
void interval_norm_relu_fwd_launch(const S* stack,                                    // [N, outer, C, inner]
                                   const S* radius,                                   // [outer, C, inner]
                                   const Compute<S>* scale, const Compute<S>* shift,  // [C], or both null: none
                                   S* out_stack,                                      // [N, outer, C, inner]
                                   S* out_radius,                                     // [outer, C, inner]
                                   int streams, Index outer, Index channels, Index inner, Compute<S> slope,
                                   cudaStream_t stream, int device);

template <typename S>
void interval_norm_relu_bwd_sums_launch(const S* grad_stack,                               // [N, outer, C, inner]
                                        const S* grad_radius,                              // or null: zero
                                        const S* stack,                                    // [N, outer, C, inner]
                                        const S* radius,                                   // [outer, C, inner]
                                        const Compute<S>* scale, const Compute<S>* shift,  // [C]
                                        Compute<S>* sum_scale, Compute<S>* sum_shift,      // [C]
                                        double* workspace, int streams, Index outer, Index channels, Index inner,
                                        Compute<S> slope, cudaStream_t stream, int device);

template <typename S>
void interval_norm_relu_bwd_launch(const S* grad_stack,                               // [N, outer, C, inner]
                                   const S* grad_radius,                              // or null: zero
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
