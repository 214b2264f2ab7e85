// Memory order of a map: [outer][channels][inner]; a stack is `streams` maps, the nominal one (if any) first.
// Every launcher works on the given stream and device, does not synchronise and allocates nothing.
#pragma once

#include "cuda/launch.cuh"

namespace fastbound {
namespace cuda {

template <typename T>
void norm_statistics_launch(const T* x,       // [outer, C, inner]
                            T* mean, T* var,  // [C]
                            Index outer, Index channels, Index inner, cudaStream_t stream, int device);

template <typename T>
void interval_norm_relu_fwd_launch(const T* stack,                  // [N, outer, C, inner]
                                   const T* radius,                 // [outer, C, inner]
                                   const T* scale, const T* shift,  // [C], or both null: no affine map
                                   T* out_stack,                    // [N, outer, C, inner]
                                   T* out_radius,                   // [outer, C, inner]
                                   int streams, Index outer, Index channels, Index inner, T slope, cudaStream_t stream,
                                   int device);

template <typename T>
void interval_norm_relu_bwd_sums_launch(const T* grad_stack,             // [N, outer, C, inner]
                                        const T* grad_radius,            // [outer, C, inner] or null: zero
                                        const T* stack,                  // [N, outer, C, inner]
                                        const T* radius,                 // [outer, C, inner]
                                        const T* scale, const T* shift,  // [C]
                                        T* sum_scale, T* sum_shift,      // [C]
                                        int streams, Index outer, Index channels, Index inner, T slope,
                                        cudaStream_t stream, int device);

template <typename T>
void interval_norm_relu_bwd_launch(const T* grad_stack,                         // [N, outer, C, inner]
                                   const T* grad_radius,                        // [outer, C, inner] or null: zero
                                   const T* stack,                              // [N, outer, C, inner]
                                   const T* radius,                             // [outer, C, inner]
                                   const T* scale, const T* shift,              // [C], or both null: no affine map
                                   const T* nominal_mul, const T* nominal_add,  // [C], or both null
                                   T* out_grad_stack,                           // [N, outer, C, inner]
                                   T* out_grad_radius,                          // [outer, C, inner]
                                   int streams, Index outer, Index channels, Index inner, T slope, cudaStream_t stream,
                                   int device);

}  // namespace cuda
}  // namespace fastbound
