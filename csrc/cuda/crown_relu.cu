#include <cfloat>

#include "cuda/crown_relu.cuh"
#include "cuda/sums.cuh"

namespace fastbound {
namespace cuda {
namespace {

template <typename A>
constexpr A kTiny = static_cast<A>(FLT_MIN);
template <>
constexpr double kTiny<double> = DBL_MIN;

// Coefficients of all rows through the neurons of one pack.
template <typename S>
struct Forward {
  using A = Compute<S>;

  CrownBounds<S> bounds;
  S* out;  // [B, S, map]
  MapShape shape;
  Relaxation<A> relaxation;
  Site site;
  ReluLines<A> lines[kPack<S>];
  A scale[kPack<S>], offset[kPack<S>];

  __device__ void start(Site where) {
    site = where;
    const Index at = site.sample * shape.outer * shape.channels * shape.inner + site.at;
    const Pack<S> center = load(bounds.center + at, site.count), radius = load(bounds.radius + at, site.count);
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      const Index channel = (site.at + k) / shape.inner % shape.channels;
      scale[k] = bounds.scale == nullptr ? A(1) : bounds.scale[channel];
      offset[k] = bounds.offset == nullptr ? A(0) : bounds.offset[channel];
      const A shift = bounds.shift == nullptr ? A(0) : bounds.shift[channel];
      lines[k] = relu_lines(scale[k] * center[k] + shift, absolute(scale[k]) * radius[k], relaxation);
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
    store(out + at, result, site.count);
    return constant;
  }
};

template <typename S>
__global__ void __launch_bounds__(RowTiles::kThreads)
    crown_relu_fwd_kernel(const S* __restrict__ rows,  // [B, S, map]
                          CrownBounds<S> bounds,
                          S* __restrict__ out,           // [B, S, map]
                          double* __restrict__ partial,  // [B, S, tiles]
                          MapShape shape, RowTiles tiles, Relaxation<Compute<S>> relaxation) {
  Forward<S> body{bounds, out, shape, relaxation, {}, {}, {}, {}};
  row_sums(tiles, rows, body, partial);
}

template <typename S>
__global__ void crown_relu_bias_kernel(const double* __restrict__ partial,  // [B, S, tiles]
                                       S* __restrict__ bias,                // [B, S]
                                       Index rows, Index tiles) {
  row_totals(partial, bias, rows, tiles);
}

// All gradients of the neurons of one thread: those of its packs are written, those of its channels are added up.
template <typename S>
struct Backward {
  using A = Compute<S>;
  struct Loaded {
    Pack<S> center, radius;
  };

  const S *grad_rows, *grad_bias, *kept;
  CrownBounds<S> bounds;
  S *out_rows, *out_center, *out_radius;
  Index size, functions;
  Relaxation<A> relaxation;
  PerChannel<kPack<S>, A> scale, shift, offset;
  Sums<3, kPack<S>> sums;

  __device__ Loaded load(Site site) const {
    return {cuda::load(bounds.center + site.at, site.count), cuda::load(bounds.radius + site.at, site.count)};
  }

  __device__ void apply(Site site, const Loaded& loaded) {
    ReluLines<A> lines[kPack<S>];
    ThroughReluGrad<A> totals[kPack<S>];  // of all rows
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      lines[k] = relu_lines(scale[k] * loaded.center[k] + shift[k], absolute(scale[k]) * loaded.radius[k], relaxation);
      totals[k] = {A(0), A(0), A(0), A(0), A(0)};
    }
    all_rows(site, lines, totals);
    Pack<S> to_center, to_radius;
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) {
      const A s = scale[k], center = loaded.center[k], radius = loaded.radius[k];
      A grad_center, grad_radius;
      relu_lines_grad(totals[k].slope, totals[k].intercept, s * center + shift[k], absolute(s) * radius,
                      relaxation.slope, kTiny<A>, grad_center, grad_radius);
      sums.add(0, k, totals[k].scale + grad_center * center + signed_as(s, grad_radius) * radius);
      sums.add(1, k, grad_center);
      sums.add(2, k, totals[k].offset);
      to_center.set(k, s * grad_center);
      to_radius.set(k, absolute(s) * grad_radius);
    }
    store(out_center + site.at, to_center, site.count);
    store(out_radius + site.at, to_radius, site.count);
  }

  __device__ void all_rows(Site site, const ReluLines<A>* lines, ThroughReluGrad<A>* totals) const {
    constexpr int kInFlight = 2;
    const Index first = site.sample * functions, inside = site.at - site.sample * size;
    for (Index row = first; row < first + functions; row += kInFlight) {
      Pack<S> x[kInFlight], grad[kInFlight];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        const int count = row + u < first + functions ? site.count : 0;
        x[u] = cuda::load(kept + (row + u) * size + inside, count);
        grad[u] = load_or_zero(grad_rows, (row + u) * size + inside, count);
      }
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        if (row + u >= first + functions) break;
        const A constant = grad_bias == nullptr ? A(0) : static_cast<A>(grad_bias[row + u]);
        Pack<S> result;
#pragma unroll
        for (int k = 0; k < kPack<S>; ++k) {
          A before = x[u][k];
          if (reads_output<S>(bounds)) before = row_before_relu(before, lines[k].lower, lines[k].upper);
          const ThroughReluGrad<A> passed =
              through_relu_grad(before, A(grad[u][k]), constant, lines[k].lower, lines[k].upper, lines[k].intercept,
                                scale[k], offset[k], relaxation.same_slope);
          result.set(k, passed.row);
          totals[k].slope += passed.slope;
          totals[k].intercept += passed.intercept;
          totals[k].scale += passed.scale;
          totals[k].offset += passed.offset;
        }
        store(out_rows + (row + u) * size + inside, result, site.count);
      }
    }
  }
};

template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads)
    crown_relu_bwd_kernel(const S* __restrict__ grad_rows,  // [B, S, map] or null
                          const S* __restrict__ grad_bias,  // [B, S] or null
                          const S* __restrict__ kept,       // [B, S, map]
                          CrownBounds<S> bounds,
                          S* __restrict__ out_rows,      // [B, S, map]
                          S* __restrict__ out_center,    // [B, map]
                          S* __restrict__ out_radius,    // [B, map]
                          double* __restrict__ partial,  // [parts, 3, period] or null: no sums of channels
                          Sweep sweep, Index functions, Relaxation<Compute<S>> relaxation) {
  using A = Compute<S>;
  const Walker walker(sweep, blockIdx.x, threadIdx.x);
  Backward<S> body{grad_rows,
                   grad_bias,
                   kept,
                   bounds,
                   out_rows,
                   out_center,
                   out_radius,
                   sweep.sample_size(),
                   functions,
                   relaxation,
                   {bounds.scale, A(1), walker},
                   {bounds.shift, A(0), walker},
                   {bounds.offset, A(0), walker},
                   {}};
  for_sites<1>(walker, body);
  if (partial != nullptr) body.sums.leave(sweep, blockIdx.x, partial);
}

template <typename A>
__global__ void crown_relu_channels_kernel(const double* __restrict__ partial,  // [parts, 3, period]
                                           A* __restrict__ out,                 // [3, C]
                                           Index parts, Index period, Index channels) {
  const Index at = static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (at >= 3 * channels) return;
  const double total =
      channel_total<3>(partial, parts, period, channels, at % channels, static_cast<int>(at / channels));
  if (threadIdx.x % 32 == 0) out[at] = static_cast<A>(total);
}

}  // namespace

template <typename S>
void crown_relu_fwd_launch(const S* rows, CrownBounds<S> bounds, S* out, S* bias, double* workspace, MapShape shape,
                           Index functions, Relaxation<Compute<S>> relaxation, cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  const RowTiles tiles = crown_relu_fwd_tiles(shape, functions, kPack<S>);
  launch("crown_relu_fwd", crown_relu_fwd_kernel<S>, tiles.blocks(), tiles.threads, stream, rows, bounds, out,
         workspace, shape, tiles, relaxation);
  const Index count = shape.samples * functions;
  launch("crown_relu_bias", crown_relu_bias_kernel<S>, ceil_div(count, kWarps), RowTiles::kThreads, stream, workspace,
         bias, count, tiles.tiles);
}

template <typename S>
void crown_relu_bwd_launch(const S* grad_rows, const S* grad_bias, const S* kept, CrownBounds<S> bounds, S* out_rows,
                           S* out_center, S* out_radius, Compute<S>* out_channels, double* workspace, MapShape shape,
                           Index functions, Relaxation<Compute<S>> relaxation, cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  const Sweep sweep = crown_relu_bwd_sweep(shape, kPack<S>);
  const bool channels = bounds.scale != nullptr || bounds.shift != nullptr || bounds.offset != nullptr;
  launch("crown_relu_bwd", crown_relu_bwd_kernel<S>, sweep.blocks(), sweep.threads, stream, grad_rows, grad_bias, kept,
         bounds, out_rows, out_center, out_radius, channels ? workspace : nullptr, sweep, functions, relaxation);
  if (channels)
    launch("crown_relu_channels", crown_relu_channels_kernel<Compute<S>>, ceil_div(3 * shape.channels, kWarps),
           RowTiles::kThreads, stream, workspace, out_channels, sweep.parts, sweep.period, shape.channels);
}

#define FASTBOUND_INSTANTIATE(S)                                                                                      \
  template void crown_relu_fwd_launch(const S*, CrownBounds<S>, S*, S*, double*, MapShape, Index,                     \
                                      Relaxation<Compute<S>>, cudaStream_t, int);                                     \
  template void crown_relu_bwd_launch(const S*, const S*, const S*, CrownBounds<S>, S*, S*, S*, Compute<S>*, double*, \
                                      MapShape, Index, Relaxation<Compute<S>>, cudaStream_t, int);
FASTBOUND_FOR_EACH_STORAGE(FASTBOUND_INSTANTIATE)
#undef FASTBOUND_INSTANTIATE

}  // namespace cuda
}  // namespace fastbound
