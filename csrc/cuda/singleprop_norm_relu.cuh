// Memory order of a map: [outer][channels][inner]; per-channel numbers are in the type of the computation.
// `activation`: 0 none, 1 zero, 2 fast-lin. Launchers work on the given stream and device, do not synchronise and
// allocate nothing.
#pragma once

#include "cuda/channel_maps.cuh"
#include "cuda/launch.cuh"

namespace fastbound {
namespace cuda {

template <typename S>
void singleprop_norm_relu_fwd_launch(const S* nominal, const S* radius,                 // [outer, C, inner]
                                     const Compute<S>* scale, const Compute<S>* shift,  // [C], or both null: none
                                     S* out_nominal, S* out_radius,                     // [outer, C, inner]
                                     Index outer, Index channels, Index inner, int activation, cudaStream_t stream,
                                     int device);

template <typename S>
void singleprop_norm_relu_bwd_sums_launch(const S* grad_nominal, const S* grad_radius,       // [outer, C, inner]
                                          const S* nominal, const S* radius,                 // [outer, C, inner]
                                          const Compute<S>* scale, const Compute<S>* shift,  // [C]
                                          Compute<S>* sum_scale, Compute<S>* sum_shift,      // [C]
                                          double* workspace, Index outer, Index channels, Index inner, int activation,
                                          cudaStream_t stream, int device);

template <typename S>
void singleprop_norm_relu_bwd_launch(const S* grad_nominal, const S* grad_radius,       // [outer, C, inner]
                                     const S* nominal, const S* radius,                 // [outer, C, inner]
                                     const Compute<S>* scale, const Compute<S>* shift,  // [C], or both null: none
                                     const Compute<S>* nominal_mul,                     // [C], both or neither
                                     const Compute<S>* nominal_add,                     // [C]
                                     S* out_grad_nominal, S* out_grad_radius,           // [outer, C, inner]
                                     Index outer, Index channels, Index inner, int activation, cudaStream_t stream,
                                     int device);

}  // namespace cuda
}  // namespace fastbound
