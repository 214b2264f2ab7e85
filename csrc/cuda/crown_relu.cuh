// Memory order of a map: [outer][channels][inner] with inner = 1 (channels innermost) or outer = 1. Rows are
// [B][S][map], bounds [B][map]; scale, shift and offset are [C] in the type of the computation, each may be null (1,
// 0, 0). Launchers work on the given stream and device, do not synchronise and allocate nothing.
#pragma once

#include "crown_relu.h"
#include "cuda/launch.cuh"
#include "cuda/storage.h"
#include "sweep.h"

namespace fastbound {
namespace cuda {

template <typename S>
struct CrownBounds {
  const S *center, *radius;                 // [B, map]
  const Compute<S>*scale, *shift, *offset;  // [C] or null
};

// Whether the backward reads the outgoing rows instead of the incoming ones; half precision has rounded those.
template <typename S>
FASTBOUND_HD bool reads_output(CrownBounds<S> bounds) {
  return bounds.scale == nullptr && sizeof(S) == sizeof(Compute<S>);
}

inline RowTiles crown_relu_fwd_tiles(MapShape shape, Index functions, int pack) {
  return make_row_tiles(shape.samples, functions, shape.outer * shape.channels * shape.inner, pack);
}

template <typename S>
void crown_relu_fwd_launch(const S* rows,  // [B, S, map]
                           CrownBounds<S> bounds,
                           S* out,             // [B, S, map]
                           S* bias,            // [B, S]
                           double* workspace,  // [B, S, tiles]
                           MapShape shape, Index functions, Relaxation<Compute<S>> relaxation, cudaStream_t stream,
                           int device);

inline Sweep crown_relu_bwd_sweep(MapShape shape, int pack) { return make_sweep(shape, pack, 1, kBlocksOfSums); }

template <typename S>
void crown_relu_bwd_launch(const S* grad_rows,  // [B, S, map] or null: zero
                           const S* grad_bias,  // [B, S] or null: zero
                           const S* kept,       // [B, S, map]: the outgoing rows if `reads_output`, else the rows
                           CrownBounds<S> bounds,
                           S* out_rows,                   // [B, S, map]
                           S* out_center, S* out_radius,  // [B, map]
                           Compute<S>* out_channels,      // [3, C]: gradients of scale, shift, offset
                           double* workspace,             // [parts, 3, period]
                           MapShape shape, Index functions, Relaxation<Compute<S>> relaxation, cudaStream_t stream,
                           int device);

}  // namespace cuda
}  // namespace fastbound
