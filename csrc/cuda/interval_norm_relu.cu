#include "cuda/interval_norm_relu_passes.cuh"

namespace fastbound::cuda {
namespace {

template <typename S>
struct Statistics {
  using A = Compute<S>;

  const NormStatistics<S>& pass;
  double first[kPack<S>];
  Sums<2, kPack<S>> sums;

  __device__ Statistics(const NormStatistics<S>& of, const Walker& walker) : pass(of) {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k)
      first[k] = static_cast<double>(static_cast<A>(pass.x[walker.channel(k) * pass.inner]));
  }

  __device__ Pack<S> load(Site site) const { return cuda::load(pass.x + site.at, site.count); }

  __device__ void apply(Site site, const Pack<S>& pack) {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k)
      if (k < site.count) add_about(first[k], static_cast<double>(pack[k]), sums.values[0][k], sums.values[1][k]);
  }
};

template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads)
    norm_statistics_kernel(const __grid_constant__ NormStatistics<S> pass,
                           double* __restrict__ partial,  // [parts, 2, period]
                           const __grid_constant__ Sweep sweep) {
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  Statistics<S> body(pass, walker);
  for_sites<4>(walker, body);
  body.sums.leave(sweep, blockIdx.x, partial);
}

template <typename S>
__global__ void __launch_bounds__(kEndThreads)
    norm_statistics_end_kernel(const __grid_constant__ NormStatistics<S> pass,
                               const double* __restrict__ partial,  // [parts, 2, period]
                               Index parts, Index period) {
  using A = Compute<S>;
  double totals[2], mean, var;
  channel_totals<2>(partial, parts, period, pass.channels, totals);
  const Index channel = end_channel();
  if (channel >= pass.channels) return;
  const double count = static_cast<double>(pass.outer) * static_cast<double>(pass.inner);
  const double first = static_cast<double>(static_cast<A>(pass.x[channel * pass.inner]));
  statistics_of(totals[0], totals[1], count, first, mean, var);
  pass.mean[channel] = static_cast<A>(mean);
  pass.var[channel] = static_cast<A>(var);
}

template <typename S>
void execute(const NormStatistics<S>& pass, double* workspace, cudaStream_t stream) {
  const Sweep sweep = pass.sweep();
  launch(pass.kName, norm_statistics_kernel<S>, sweep.blocks(), sweep.threads, stream, pass, workspace, sweep);
  launch("norm_statistics_end", norm_statistics_end_kernel<S>, end_blocks(pass.channels), kEndThreads, stream, pass,
         workspace, sweep.parts, sweep.period);
}

template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads)
    interval_norm_relu_fwd_kernel(const __grid_constant__ IntervalNormReluFwd<S> pass,
                                  const __grid_constant__ Sweep sweep) {
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  const Forward<S> body(pass, walker);
  for_sites<2>(walker, body);
}

template <typename S>
void execute(const IntervalNormReluFwd<S>& pass, double*, cudaStream_t stream) {
  const Sweep sweep = pass.sweep();
  launch(pass.kName, interval_norm_relu_fwd_kernel<S>, sweep.blocks(), sweep.threads, stream, pass, sweep);
}

template <typename S>
void execute(const IntervalNormReluBwdSums<S>& pass, double* workspace, cudaStream_t stream) {
  bwd_sums_pass(pass, workspace, stream);
}

template <typename S>
void execute(const IntervalNormReluBwd<S>& pass, double*, cudaStream_t stream) {
  bwd_pass(pass, stream);
}

}  // namespace

FASTBOUND_LAUNCHES(NormStatistics)
FASTBOUND_LAUNCHES(IntervalNormReluFwd)
FASTBOUND_LAUNCHES(IntervalNormReluBwdSums)
FASTBOUND_LAUNCHES(IntervalNormReluBwd)

}  // namespace fastbound::cuda
