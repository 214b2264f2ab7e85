#include "cuda/interval_norm_relu_moments.cuh"
#include "cuda/interval_norm_relu_passes.cuh"

namespace fastbound {
namespace cuda {
namespace {

template <typename S>
struct ForwardMoments {
  using A = Compute<S>;
  using Loaded = typename Forward<S>::Loaded;

  Forward<S> maps;
  double sums[kMoments] = {};

  __device__ Loaded load(Site site) const { return maps.load(site); }

  __device__ void apply(Site site, Loaded& x) {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      const A scale = maps.scale[k];
      if (k < site.count) add(moment_terms(scale * x.center[k] + maps.shift[k], absolute(scale) * x.radius[k]));
    }
    maps.apply(site, x);
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
    interval_norm_relu_moments_fwd_kernel(const S* __restrict__ stack,           // [N, outer, C, inner]
                                          const S* __restrict__ radius,          // [outer, C, inner]
                                          const Compute<S>* __restrict__ scale,  // [C] or null
                                          const Compute<S>* __restrict__ shift,  // [C] or null
                                          S* __restrict__ out_stack,             // [N, outer, C, inner]
                                          S* __restrict__ out_radius,            // [outer, C, inner]
                                          double* __restrict__ partial,          // [8, blocks]
                                          int streams, Index size, Sweep sweep, Compute<S> slope) {
  using A = Compute<S>;
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  ForwardMoments<S> body{{{stack, streams, size},
                          radius,
                          {scale, A(1), walker},
                          {shift, A(0), walker},
                          {out_stack, streams, size},
                          out_radius,
                          slope}};
  for_sites<2>(walker, body);
  body.leave(blockIdx.x, sweep.blocks(), partial);
}

// One block adds up the partial sums of the others; several of its warps share one moment.
constexpr int kWarpsPerMoment = 4;
constexpr int kEndThreads = 32 * kWarpsPerMoment * kMoments;

template <typename A>
__global__ void __launch_bounds__(kEndThreads)
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

// The terms that the moments add to the gradients after the ReLU.
template <typename A>
struct MomentsTerms {
  const A *grad, *moments;  // [8]
  double size;

  __device__ MomentsGrad<A> operator()() const { return moments_grad(grad, moments, size); }
};

double count(Index outer, Index channels, Index inner) { return static_cast<double>(outer * channels * inner); }

}  // namespace

template <typename S>
void interval_norm_relu_moments_fwd_launch(const S* stack, const S* radius, const Compute<S>* scale,
                                           const Compute<S>* shift, S* out_stack, S* out_radius, Compute<S>* moments,
                                           double* workspace, int streams, Index outer, Index channels, Index inner,
                                           Compute<S> slope, cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  const Sweep sweep = sums_sweep(outer, channels, inner, kPack<S>);
  launch("interval_norm_relu_moments_fwd", interval_norm_relu_moments_fwd_kernel<S>, sweep.blocks(), sweep.threads,
         stream, stack, radius, scale, shift, out_stack, out_radius, workspace, streams, outer * channels * inner,
         sweep, slope);
  launch("interval_norm_relu_moments_end", interval_norm_relu_moments_end_kernel<Compute<S>>, 1, kEndThreads, stream,
         workspace, moments, sweep.blocks(), count(outer, channels, inner));
}

template <typename S>
void interval_norm_relu_moments_bwd_sums_launch(const S* grad_stack, const S* grad_radius,
                                                const Compute<S>* grad_moments, const Compute<S>* moments,
                                                const S* stack, const S* radius, const Compute<S>* scale,
                                                const Compute<S>* shift, Compute<S>* sum_scale, Compute<S>* sum_shift,
                                                double* workspace, int streams, Index outer, Index channels,
                                                Index inner, Compute<S> slope, cudaStream_t stream, int device) {
  const MomentsTerms<Compute<S>> terms{grad_moments, moments, count(outer, channels, inner)};
  bwd_sums_pass("interval_norm_relu_moments_bwd_sums", grad_stack, grad_radius, stack, radius, scale, shift, sum_scale,
                sum_shift, workspace, streams, outer, channels, inner, slope, terms, stream, device);
}

template <typename S>
void interval_norm_relu_moments_bwd_launch(const S* grad_stack, const S* grad_radius, const Compute<S>* grad_moments,
                                           const Compute<S>* moments, const S* stack, const S* radius,
                                           const Compute<S>* scale, const Compute<S>* shift,
                                           const Compute<S>* nominal_mul, const Compute<S>* nominal_add,
                                           S* out_grad_stack, S* out_grad_radius, int streams, Index outer,
                                           Index channels, Index inner, Compute<S> slope, cudaStream_t stream,
                                           int device) {
  const MomentsTerms<Compute<S>> terms{grad_moments, moments, count(outer, channels, inner)};
  bwd_pass("interval_norm_relu_moments_bwd", grad_stack, grad_radius, stack, radius, scale, shift, nominal_mul,
           nominal_add, out_grad_stack, out_grad_radius, streams, outer, channels, inner, slope, terms, stream, device);
}

#define FASTBOUND_INSTANTIATE(S)                                                                                       \
  template void interval_norm_relu_moments_fwd_launch(const S*, const S*, const Compute<S>*, const Compute<S>*, S*,    \
                                                      S*, Compute<S>*, double*, int, Index, Index, Index, Compute<S>,  \
                                                      cudaStream_t, int);                                              \
  template void interval_norm_relu_moments_bwd_sums_launch(                                                            \
      const S*, const S*, const Compute<S>*, const Compute<S>*, const S*, const S*, const Compute<S>*,                 \
      const Compute<S>*, Compute<S>*, Compute<S>*, double*, int, Index, Index, Index, Compute<S>, cudaStream_t, int);  \
  template void interval_norm_relu_moments_bwd_launch(const S*, const S*, const Compute<S>*, const Compute<S>*,        \
                                                      const S*, const S*, const Compute<S>*, const Compute<S>*,        \
                                                      const Compute<S>*, const Compute<S>*, S*, S*, int, Index, Index, \
                                                      Index, Compute<S>, cudaStream_t, int);
FASTBOUND_FOR_EACH_STORAGE(FASTBOUND_INSTANTIATE)
#undef FASTBOUND_INSTANTIATE

}  // namespace cuda
}  // namespace fastbound
