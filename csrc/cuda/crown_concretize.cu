#include "crown_concretize.h"
#include "cuda/sums.cuh"

namespace fastbound {
namespace cuda {
namespace {

template <typename S>
struct Forward {
  using A = Compute<S>;

  const CrownConcretizeFwd<S>& pass;
  Pack<S> center, radius;

  __device__ void start(Site site) {
    center = load(pass.center + site.sample * pass.size + site.at, site.count);
    radius = load(pass.radius + site.sample * pass.size + site.at, site.count);
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
    crown_concretize_fwd_kernel(const __grid_constant__ CrownConcretizeFwd<S> pass,
                                double* __restrict__ partial,  // [B, S, tiles]
                                const __grid_constant__ RowTiles tiles) {
  Forward<S> body{pass, {}, {}};
  row_sums(tiles, pass.rows, body, partial);
}

template <typename S>
void execute(const CrownConcretizeFwd<S>& pass, double* workspace, cudaStream_t stream) {
  const RowTiles tiles = pass.tiles();
  launch(pass.kName, crown_concretize_fwd_kernel<S>, tiles.blocks(), tiles.threads, stream, pass, workspace, tiles);
  end_rows(pass, workspace, pass.out, stream);
}

// One pack of a box against all rows of its sample.
template <typename S>
struct Backward {
  using A = Compute<S>;
  struct Loaded {
    Pack<S> center, radius;
  };

  const CrownConcretizeBwd<S>& pass;

  __device__ Loaded load(Site site) const {
    return {cuda::load(pass.center + site.at, site.count), cuda::load(pass.radius + site.at, site.count)};
  }

  __device__ void apply(Site site, const Loaded& box) const {
    constexpr int kInFlight = 4;
    A to_center[kPack<S>] = {}, to_radius[kPack<S>] = {};
    const Index functions = pass.functions, size = pass.size;
    const Index first = site.sample * functions, inside = site.at - site.sample * size;
    for (Index row = first; row < first + functions; row += kInFlight) {
      Pack<S> x[kInFlight];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
        x[u] = cuda::load(pass.rows + (row + u) * size + inside, row + u < first + functions ? site.count : 0);
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        if (row + u >= first + functions) break;
        const A g = static_cast<A>(pass.grad[row + u]);
        Pack<S> result;
#pragma unroll
        for (int k = 0; k < kPack<S>; ++k) {
          result.set(k, concretized_grad_row(g, x[u][k], box.center[k], box.radius[k]));
          concretized_grad_box(g, x[u][k], to_center[k], to_radius[k]);
        }
        if (pass.out_rows != nullptr) store(pass.out_rows + (row + u) * size + inside, result, site.count);
      }
    }
    if (pass.out_center == nullptr) return;
    Pack<S> packed_center, packed_radius;
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      packed_center.set(k, to_center[k]);
      packed_radius.set(k, to_radius[k]);
    }
    store(pass.out_center + site.at, packed_center, site.count);
    store(pass.out_radius + site.at, packed_radius, site.count);
  }
};

template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads)
    crown_concretize_bwd_kernel(const __grid_constant__ CrownConcretizeBwd<S> pass,
                                const __grid_constant__ Sweep sweep) {
  const Backward<S> body{pass};
  for_sites<1>(Walker(sweep, blockIdx.x, threadIdx.x), body);
}

template <typename S>
void execute(const CrownConcretizeBwd<S>& pass, double*, cudaStream_t stream) {
  const Sweep sweep = pass.sweep();
  launch(pass.kName, crown_concretize_bwd_kernel<S>, sweep.blocks(), sweep.threads, stream, pass, sweep);
}

}  // namespace

FASTBOUND_LAUNCHES(CrownConcretizeFwd)
FASTBOUND_LAUNCHES(CrownConcretizeBwd)

}  // namespace cuda
}  // namespace fastbound
