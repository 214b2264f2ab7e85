// Sweeps over maps in the memory order [outer][channels][inner], with the numbers of their channels.
#pragma once

#include "cuda/storage.h"
#include "sweep.h"

namespace fastbound {
namespace cuda {

// One sample of pixels, or samples of planes.
inline MapShape map_shape(Index outer, Index channels, Index inner) {
  return inner == 1 ? MapShape{1, outer, channels, 1} : MapShape{outer, 1, channels, inner};
}

// The sweep of a pass that only writes maps; without numbers of channels, all elements belong to one channel.
inline Sweep elementwise_sweep(bool channels_matter, Index outer, Index channels, Index inner, int pack) {
  const MapShape shape =
      channels_matter ? map_shape(outer, channels, inner) : map_shape(outer * channels * inner, 1, 1);
  return make_sweep(shape, pack, 4, kAnyBlocks);
}

// The sweep of a pass that leaves partial sums.
inline Sweep sums_sweep(Index outer, Index channels, Index inner, int pack) {
  return make_sweep(map_shape(outer, channels, inner), pack, 4, kBlocksOfSums);
}

// Size, in doubles, of the workspace for a pass that leaves two sums per channel: [parts, 2, period].
inline Index channel_sums_workspace(int dtype, Index outer, Index channels, Index inner) {
  return dispatch(dtype, [&](auto zero) {
    const Sweep sweep = sums_sweep(outer, channels, inner, kPack<decltype(zero)>);
    return 2 * sweep.parts * sweep.period;
  });
}

}  // namespace cuda
}  // namespace fastbound
