#include "crown_relu.h"
#include "cuda/sums.cuh"

namespace fastbound::cuda {
namespace {

// Coefficients of all rows through the neurons of one pack.
template <typename S>
struct Forward {
  using A = Compute<S>;

  const CrownReluFwd<S>& pass;
  Site site;
  ReluLines<A> lines[kPack<S>];
  A scale[kPack<S>], offset[kPack<S>];

  __device__ void start(Site where) {
    site = where;
    const Index at = site.sample * pass.size() + site.at;
    const Pack<S> center = load(pass.center + at, site.count), radius = load(pass.radius + at, site.count);
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      const Index channel = (site.at + k) / pass.inner % pass.channels;
      scale[k] = pass.scale == nullptr ? A(1) : pass.scale[channel];
      offset[k] = pass.offset == nullptr ? A(0) : pass.offset[channel];
      const A shift = pass.shift == nullptr ? A(0) : pass.shift[channel];
      lines[k] = relu_lines(scale[k] * center[k] + shift, absolute(scale[k]) * radius[k], pass.lower_line());
    }
  }

  __device__ A row(Index at, const Pack<S>& pack) const {
    Pack<S> result;
    A constant = 0;
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      const ThroughRelu<A> passed =
          through_relu(A(pack[k]), lines[k].lower, lines[k].upper, lines[k].intercept, scale[k], offset[k]);
      result.set(k, passed.row);
      constant += passed.constant;
    }
    store(pass.out_rows + at, result, site.count);
    return constant;
  }
};

template <typename S>
__global__ void __launch_bounds__(RowTiles::kThreads)
    crown_relu_fwd_kernel(const __grid_constant__ CrownReluFwd<S> pass,
                          double* __restrict__ partial,  // [B, S, tiles]
                          const __grid_constant__ RowTiles tiles) {
  Forward<S> body{pass, {}, {}, {}, {}};
  row_sums(tiles, pass.rows, body, partial);
}

template <typename S>
void execute(const CrownReluFwd<S>& pass, double* workspace, cudaStream_t stream) {
  const RowTiles tiles = pass.tiles();
  launch(pass.kName, crown_relu_fwd_kernel<S>, tiles.blocks(), tiles.threads, stream, pass, workspace, tiles);
  end_rows(pass, workspace, pass.bias, stream);
}

// All gradients of the neurons of one thread: those of its packs are written, those of its channels are added up.
template <typename S>
struct Backward {
  using A = Compute<S>;
  struct Loaded {
    Pack<S> center, radius;
  };

  const CrownReluBwd<S>& pass;
  Index size;
  PerChannel<kPack<S>, A> scale, shift, offset;
  Sums<3, kPack<S>> sums;

  __device__ Loaded load(Site site) const {
    return {cuda::load(pass.center + site.at, site.count), cuda::load(pass.radius + site.at, site.count)};
  }

  __device__ void apply(Site site, const Loaded& loaded) {
    ReluLines<A> lines[kPack<S>];
    ThroughReluGrad<A> totals[kPack<S>];  // of all rows
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      lines[k] =
          relu_lines(scale[k] * loaded.center[k] + shift[k], absolute(scale[k]) * loaded.radius[k], pass.lower_line());
      totals[k] = {A(0), A(0), A(0), A(0), A(0)};
    }
    all_rows(site, lines, totals);
    Pack<S> to_center, to_radius;
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      const A s = scale[k], center = loaded.center[k], radius = loaded.radius[k];
      A grad_center, grad_radius;
      relu_lines_grad(totals[k].slope, totals[k].intercept, s * center + shift[k], absolute(s) * radius, pass.slope,
                      kTiny<A>, grad_center, grad_radius);
      sums.add(0, k, totals[k].scale + grad_center * center + signed_as(s, grad_radius) * radius);
      sums.add(1, k, grad_center);
      sums.add(2, k, totals[k].offset);
      to_center.set(k, s * grad_center);
      to_radius.set(k, absolute(s) * grad_radius);
    }
    store(pass.out_center + site.at, to_center, site.count);
    store(pass.out_radius + site.at, to_radius, site.count);
  }

  __device__ void all_rows(Site site, const ReluLines<A>* lines, ThroughReluGrad<A>* totals) const {
    constexpr int kInFlight = 2;
    const Index functions = pass.functions, first = site.sample * functions, inside = site.at - site.sample * size;
    for (Index row = first; row < first + functions; row += kInFlight) {
      Pack<S> x[kInFlight], grad[kInFlight];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        const int count = row + u < first + functions ? site.count : 0;
        x[u] = cuda::load(pass.kept + (row + u) * size + inside, count);
        grad[u] = load_or_zero(pass.grad_rows, (row + u) * size + inside, count);
      }
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        if (row + u >= first + functions) break;
        const A constant = pass.grad_bias == nullptr ? A(0) : static_cast<A>(pass.grad_bias[row + u]);
        Pack<S> result;
#pragma unroll
        for (int k = 0; k < kPack<S>; ++k) {
          A before = x[u][k];
          if (pass.reads_output()) before = row_before_relu(before, lines[k].lower, lines[k].upper);
          const ThroughReluGrad<A> passed =
              through_relu_grad(before, A(grad[u][k]), constant, lines[k].lower, lines[k].upper, lines[k].intercept,
                                scale[k], offset[k], pass.lower_line().same_slope);
          result.set(k, passed.row);
          totals[k].slope += passed.slope;
          totals[k].intercept += passed.intercept;
          totals[k].scale += passed.scale;
          totals[k].offset += passed.offset;
        }
        store(pass.out_rows + (row + u) * size + inside, result, site.count);
      }
    }
  }
};

template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads)
    crown_relu_bwd_kernel(const __grid_constant__ CrownReluBwd<S> pass,
                          double* __restrict__ partial,  // [parts, 3, period] or null: no sums of channels
                          const __grid_constant__ Sweep sweep) {
  using A = Compute<S>;
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  Backward<S> body{
      pass, sweep.sample_size(), {pass.scale, A(1), walker}, {pass.shift, A(0), walker}, {pass.offset, A(0), walker},
      {}};
  for_sites<1>(walker, body);
  if (partial != nullptr) body.sums.leave(sweep, blockIdx.x, partial);
}

template <typename A>
__global__ void __launch_bounds__(kEndThreads)
    crown_relu_channels_kernel(const double* __restrict__ partial,  // [parts, 3, period]
                               A* __restrict__ out,                 // [3, C]
                               Index parts, Index period, Index channels) {
  double totals[3];
  channel_totals<3>(partial, parts, period, channels, totals);
  const Index channel = end_channel();
  if (channel >= channels) return;
#pragma unroll
  for (int which = 0; which < 3; ++which) out[which * channels + channel] = static_cast<A>(totals[which]);
}

template <typename S>
void execute(const CrownReluBwd<S>& pass, double* workspace, cudaStream_t stream) {
  const Sweep sweep = pass.sweep();
  launch(pass.kName, crown_relu_bwd_kernel<S>, sweep.blocks(), sweep.threads, stream, pass, workspace, sweep);
  if (pass.has_vectors())
    launch("crown_relu_channels", crown_relu_channels_kernel<Compute<S>>, end_blocks(pass.channels), kEndThreads,
           stream, workspace, pass.out_channels, sweep.parts, sweep.period, pass.channels);
}

}  // namespace

FASTBOUND_LAUNCHES(CrownReluFwd)
FASTBOUND_LAUNCHES(CrownReluBwd)

}  // namespace fastbound::cuda
