#include "crown_concretize.h"
#include "cuda/crown_concretize.cuh"
#include "cuda/sums.cuh"

namespace fastbound {
namespace cuda {
namespace {

template <typename S>
struct Forward {
  using A = Compute<S>;

  const S *boxes_center, *boxes_radius;  // [B, D]
  Index size;
  Pack<S> center, radius;

  __device__ void start(Site site) {
    center = load(boxes_center + site.sample * size + site.at, site.count);
    radius = load(boxes_radius + site.sample * size + site.at, site.count);
  }

  __device__ A row(Index, const Pack<S>& pack) const {
    A total = 0;
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) total += concretized(pack[k], center[k], radius[k]);
    return total;
  }
};

template <typename S>
__global__ void __launch_bounds__(RowTiles::kThreads)
    crown_concretize_fwd_kernel(const S* __restrict__ rows,    // [B, S, D]
                                const S* __restrict__ center,  // [B, D]
                                const S* __restrict__ radius,  // [B, D]
                                double* __restrict__ partial,  // [B, S, tiles]
                                RowTiles tiles) {
  Forward<S> body{center, radius, tiles.size, {}, {}};
  row_sums(tiles, rows, body, partial);
}

template <typename S>
__global__ void crown_concretize_sum_kernel(const double* __restrict__ partial,  // [B, S, tiles]
                                            S* __restrict__ out,                 // [B, S]
                                            Index rows, Index tiles) {
  row_totals(partial, out, rows, tiles);
}

// One pack of a box against all rows of its sample.
template <typename S>
struct Backward {
  using A = Compute<S>;
  struct Loaded {
    Pack<S> center, radius;
  };

  const S *grad, *rows, *center, *radius;
  S *out_rows, *out_center, *out_radius;
  Index functions, size;

  __device__ Loaded load(Site site) const {
    return {cuda::load(center + site.at, site.count), cuda::load(radius + site.at, site.count)};
  }

  __device__ void apply(Site site, const Loaded& box) const {
    constexpr int kInFlight = 4;
    A to_center[kPack<S>] = {}, to_radius[kPack<S>] = {};
    const Index first = site.sample * functions, inside = site.at - site.sample * size;
    for (Index row = first; row < first + functions; row += kInFlight) {
      Pack<S> x[kInFlight];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
        x[u] = cuda::load(rows + (row + u) * size + inside, row + u < first + functions ? site.count : 0);
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        if (row + u >= first + functions) break;
        const A g = static_cast<A>(grad[row + u]);
        Pack<S> result;
#pragma unroll
        for (int k = 0; k < kPack<S>; ++k) {
          result.set(k, concretized_grad_row(g, x[u][k], box.center[k], box.radius[k]));
          concretized_grad_box(g, x[u][k], to_center[k], to_radius[k]);
        }
        if (out_rows != nullptr) store(out_rows + (row + u) * size + inside, result, site.count);
      }
    }
    if (out_center == nullptr) return;
    Pack<S> packed_center, packed_radius;
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      packed_center.set(k, to_center[k]);
      packed_radius.set(k, to_radius[k]);
    }
    store(out_center + site.at, packed_center, site.count);
    store(out_radius + site.at, packed_radius, site.count);
  }
};

template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads)
    crown_concretize_bwd_kernel(const S* __restrict__ grad,    // [B, S]
                                const S* __restrict__ rows,    // [B, S, D]
                                const S* __restrict__ center,  // [B, D]
                                const S* __restrict__ radius,  // [B, D]
                                S* __restrict__ out_rows,      // [B, S, D] or null
                                S* __restrict__ out_center,    // [B, D] or null
                                S* __restrict__ out_radius,    // [B, D] or null
                                Sweep sweep, Index functions) {
  const Backward<S> body{grad, rows, center, radius, out_rows, out_center, out_radius, functions, sweep.sample_size()};
  for_sites<1>(Walker(sweep, blockIdx.x, threadIdx.x), body);
}

}  // namespace

template <typename S>
void crown_concretize_fwd_launch(const S* rows, const S* center, const S* radius, S* out, double* workspace,
                                 Index batch, Index functions, Index size, cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  const RowTiles tiles = make_row_tiles(batch, functions, size, kPack<S>);
  launch("crown_concretize_fwd", crown_concretize_fwd_kernel<S>, tiles.blocks(), tiles.threads, stream, rows, center,
         radius, workspace, tiles);
  launch("crown_concretize_sum", crown_concretize_sum_kernel<S>, ceil_div(batch * functions, kWarps),
         RowTiles::kThreads, stream, workspace, out, batch * functions, tiles.tiles);
}

template <typename S>
void crown_concretize_bwd_launch(const S* grad, const S* rows, const S* center, const S* radius, S* out_rows,
                                 S* out_center, S* out_radius, Index batch, Index functions, Index size,
                                 cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  const Sweep sweep = make_sweep({batch, size, 1, 1}, kPack<S>, 1, kAnyBlocks);
  launch("crown_concretize_bwd", crown_concretize_bwd_kernel<S>, sweep.blocks(), sweep.threads, stream, grad, rows,
         center, radius, out_rows, out_center, out_radius, sweep, functions);
}

#define FASTBOUND_INSTANTIATE(S)                                                                                     \
  template void crown_concretize_fwd_launch(const S*, const S*, const S*, S*, double*, Index, Index, Index,          \
                                            cudaStream_t, int);                                                      \
  template void crown_concretize_bwd_launch(const S*, const S*, const S*, const S*, S*, S*, S*, Index, Index, Index, \
                                            cudaStream_t, int);
FASTBOUND_FOR_EACH_STORAGE(FASTBOUND_INSTANTIATE)
#undef FASTBOUND_INSTANTIATE

}  // namespace cuda
}  // namespace fastbound
