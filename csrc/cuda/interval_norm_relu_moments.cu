#include "cuda/interval_norm_relu_passes.cuh"
#include "interval_norm_relu_moments.h"

namespace fastbound::cuda {
namespace {

template <typename S>
struct ForwardMoments : Forward<S> {
  using A = Compute<S>;

  double sums[kMoments] = {};

  using Forward<S>::Forward;

  __device__ void apply(Site site, typename Forward<S>::Loaded& x) {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      const A scale = this->scale[k];
      if (k < site.count) add(moment_terms(scale * x.center[k] + this->shift[k], absolute(scale) * x.radius[k]));
    }
    Forward<S>::apply(site, x);
  }

  __device__ void add(const MomentTerms<A>& of) {
    const double above = static_cast<double>(of.active), below = static_cast<double>(of.inactive);
    sums[kSumRadius] += static_cast<double>(of.radius);
    sums[kSumCenter] += static_cast<double>(of.center);
    sums[kCountActive] += of.is_active;
    sums[kCountInactive] += of.is_inactive;
    sums[kSumActive] += above;
    sums[kSumInactive] += below;
    sums[kSpreadActive] += above * above;
    sums[kSpreadInactive] += below * below;
  }

  // To partial [8, blocks].
  __device__ void leave(Index block, Index blocks, double* partial) const {
    __shared__ double shared[kMoments][Sweep::kThreads / 32];
    const int thread = threadIdx.x;
#pragma unroll
    for (int i = 0; i < kMoments; ++i) {
      const double total = warp_sum(sums[i]);
      if (thread % 32 == 0) shared[i][thread / 32] = total;
    }
    __syncthreads();
    if (thread >= kMoments) return;
    double total = 0;
    for (int warp = 0; warp < static_cast<int>(blockDim.x) / 32; ++warp) total += shared[thread][warp];
    partial[thread * blocks + block] = total;
  }
};

template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads)
    interval_norm_relu_moments_fwd_kernel(const __grid_constant__ IntervalNormReluMomentsFwd<S> pass,
                                          double* __restrict__ partial,  // [8, blocks]
                                          const __grid_constant__ Sweep sweep) {
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  ForwardMoments<S> body(pass, walker);
  for_sites<2>(walker, body);
  body.leave(blockIdx.x, sweep.blocks(), partial);
}

// One block adds up the partial sums of the others; several of its warps share one moment.
constexpr int kWarpsPerMoment = 4;
constexpr int kMomentsThreads = 32 * kWarpsPerMoment * kMoments;

template <typename A>
__global__ void __launch_bounds__(kMomentsThreads)
    interval_norm_relu_moments_end_kernel(const double* __restrict__ partial,  // [8, blocks]
                                          A* __restrict__ moments,             // [8]
                                          Index blocks, double size) {
  __shared__ double shared[kMoments * kWarpsPerMoment];
  const int warp = threadIdx.x / 32, moment = warp / kWarpsPerMoment;
  double total = 0;
  for (Index i = threadIdx.x % (32 * kWarpsPerMoment); i < blocks; i += 32 * kWarpsPerMoment)
    total += partial[moment * blocks + i];
  total = warp_sum(total);
  if (threadIdx.x % 32 == 0) shared[warp] = total;
  __syncthreads();
  if (threadIdx.x != 0) return;
  double sums[kMoments] = {};
#pragma unroll
  for (int i = 0; i < kMoments * kWarpsPerMoment; ++i) sums[i / kWarpsPerMoment] += shared[i];
  moments_of(sums, size, moments);
}

template <typename S>
void execute(const IntervalNormReluMomentsFwd<S>& pass, double* workspace, cudaStream_t stream) {
  const Sweep sweep = pass.sweep();
  launch(pass.kName, interval_norm_relu_moments_fwd_kernel<S>, sweep.blocks(), sweep.threads, stream, pass, workspace,
         sweep);
  launch("interval_norm_relu_moments_end", interval_norm_relu_moments_end_kernel<Compute<S>>, 1, kMomentsThreads,
         stream, workspace, pass.moments, sweep.blocks(), static_cast<double>(pass.size()));
}

template <typename S>
void execute(const IntervalNormReluMomentsBwdSums<S>& pass, double* workspace, cudaStream_t stream) {
  bwd_sums_pass(pass, workspace, stream);
}

template <typename S>
void execute(const IntervalNormReluMomentsBwd<S>& pass, double*, cudaStream_t stream) {
  bwd_pass(pass, stream);
}

}  // namespace

FASTBOUND_LAUNCHES(IntervalNormReluMomentsFwd)
FASTBOUND_LAUNCHES(IntervalNormReluMomentsBwdSums)
FASTBOUND_LAUNCHES(IntervalNormReluMomentsBwd)

}  // namespace fastbound::cuda
