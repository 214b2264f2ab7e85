#include "cuda/interval_norm_relu.cuh"
#include "cuda/interval_norm_relu_passes.cuh"

namespace fastbound {
namespace cuda {
namespace {

template <typename S>
struct Statistics {
  using A = Compute<S>;

  const S* x;
  double first[kPack<S>];
  Sums<2, kPack<S>> sums;

  __device__ Statistics(const S* values, const Sweep& sweep, const Walker& walker) : x(values) {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k)
      first[k] = static_cast<double>(static_cast<A>(x[walker.channel(k) * sweep.shape.inner]));
  }

  __device__ Pack<S> load(Site site) const { return cuda::load(x + site.at, site.count); }

  __device__ void apply(Site site, const Pack<S>& pack) {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k)
      if (k < site.count) add_about(first[k], static_cast<double>(pack[k]), sums.values[0][k], sums.values[1][k]);
  }
};

template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads)
    norm_statistics_kernel(const S* __restrict__ x,       // [outer, C, inner]
                           double* __restrict__ partial,  // [parts, 2, period]
                           Sweep sweep) {
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  Statistics<S> body(x, sweep, walker);
  for_sites<4>(walker, body);
  body.sums.leave(sweep, blockIdx.x, partial);
}

template <typename S>
__global__ void norm_statistics_end_kernel(const double* __restrict__ partial,  // [parts, 2, period]
                                           const S* __restrict__ x,             // [outer, C, inner]
                                           Compute<S>* __restrict__ mean,       // [C]
                                           Compute<S>* __restrict__ var,        // [C]
                                           Index parts, Index period, Index channels, Index inner, double count) {
  const Index channel = static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (channel >= channels) return;
  const double sum = channel_total<2>(partial, parts, period, channels, channel, 0);
  const double square = channel_total<2>(partial, parts, period, channels, channel, 1);
  if (threadIdx.x % 32 != 0) return;
  double exact_mean, exact_var;
  statistics_of(sum, square, count, static_cast<double>(static_cast<Compute<S>>(x[channel * inner])), exact_mean,
                exact_var);
  mean[channel] = static_cast<Compute<S>>(exact_mean);
  var[channel] = static_cast<Compute<S>>(exact_var);
}

template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads)
    interval_norm_relu_fwd_kernel(const S* __restrict__ stack,           // [N, outer, C, inner]
                                  const S* __restrict__ radius,          // [outer, C, inner]
                                  const Compute<S>* __restrict__ scale,  // [C] or null
                                  const Compute<S>* __restrict__ shift,  // [C] or null
                                  S* __restrict__ out_stack,             // [N, outer, C, inner]
                                  S* __restrict__ out_radius,            // [outer, C, inner]
                                  int streams, Index size, Sweep sweep, Compute<S> slope) {
  using A = Compute<S>;
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  const Forward<S> body{{stack, streams, size},
                        radius,
                        {scale, A(1), walker},
                        {shift, A(0), walker},
                        {out_stack, streams, size},
                        out_radius,
                        slope};
  for_sites<2>(walker, body);
}

}  // namespace

template <typename S>
void norm_statistics_launch(const S* x, Compute<S>* mean, Compute<S>* var, double* workspace, Index outer,
                            Index channels, Index inner, cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  const Sweep sweep = sums_sweep(outer, channels, inner, kPack<S>);
  launch("norm_statistics", norm_statistics_kernel<S>, sweep.blocks(), sweep.threads, stream, x, workspace, sweep);
  launch("norm_statistics_end", norm_statistics_end_kernel<S>, ceil_div(channels, kWarps), RowTiles::kThreads, stream,
         workspace, x, mean, var, sweep.parts, sweep.period, channels, inner,
         static_cast<double>(outer) * static_cast<double>(inner));
}

template <typename S>
void interval_norm_relu_fwd_launch(const S* stack, const S* radius, const Compute<S>* scale, const Compute<S>* shift,
                                   S* out_stack, S* out_radius, int streams, Index outer, Index channels, Index inner,
                                   Compute<S> slope, cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  const Sweep sweep = elementwise_sweep(scale != nullptr, outer, channels, inner, kPack<S>);
  launch("interval_norm_relu_fwd", interval_norm_relu_fwd_kernel<S>, sweep.blocks(), sweep.threads, stream, stack,
         radius, scale, shift, out_stack, out_radius, streams, outer * channels * inner, sweep, slope);
}

template <typename S>
void interval_norm_relu_bwd_sums_launch(const S* grad_stack, const S* grad_radius, const S* stack, const S* radius,
                                        const Compute<S>* scale, const Compute<S>* shift, Compute<S>* sum_scale,
                                        Compute<S>* sum_shift, double* workspace, int streams, Index outer,
                                        Index channels, Index inner, Compute<S> slope, cudaStream_t stream,
                                        int device) {
  bwd_sums_pass("interval_norm_relu_bwd_sums", grad_stack, grad_radius, stack, radius, scale, shift, sum_scale,
                sum_shift, workspace, streams, outer, channels, inner, slope, NoTerms(), stream, device);
}

template <typename S>
void interval_norm_relu_bwd_launch(const S* grad_stack, const S* grad_radius, const S* stack, const S* radius,
                                   const Compute<S>* scale, const Compute<S>* shift, const Compute<S>* nominal_mul,
                                   const Compute<S>* nominal_add, S* out_grad_stack, S* out_grad_radius, int streams,
                                   Index outer, Index channels, Index inner, Compute<S> slope, cudaStream_t stream,
                                   int device) {
  bwd_pass("interval_norm_relu_bwd", grad_stack, grad_radius, stack, radius, scale, shift, nominal_mul, nominal_add,
           out_grad_stack, out_grad_radius, streams, outer, channels, inner, slope, NoTerms(), stream, device);
}

#define FASTBOUND_INSTANTIATE(S)                                                                                       \
  template void norm_statistics_launch(const S*, Compute<S>*, Compute<S>*, double*, Index, Index, Index, cudaStream_t, \
                                       int);                                                                           \
  template void interval_norm_relu_fwd_launch(const S*, const S*, const Compute<S>*, const Compute<S>*, S*, S*, int,   \
                                              Index, Index, Index, Compute<S>, cudaStream_t, int);                     \
  template void interval_norm_relu_bwd_sums_launch(const S*, const S*, const S*, const S*, const Compute<S>*,          \
                                                   const Compute<S>*, Compute<S>*, Compute<S>*, double*, int, Index,   \
                                                   Index, Index, Compute<S>, cudaStream_t, int);                       \
  template void interval_norm_relu_bwd_launch(const S*, const S*, const S*, const S*, const Compute<S>*,               \
                                              const Compute<S>*, const Compute<S>*, const Compute<S>*, S*, S*, int,    \
                                              Index, Index, Index, Compute<S>, cudaStream_t, int);
FASTBOUND_FOR_EACH_STORAGE(FASTBOUND_INSTANTIATE)
#undef FASTBOUND_INSTANTIATE

}  // namespace cuda
}  // namespace fastbound
