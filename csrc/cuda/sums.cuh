// Deterministic sums in two stages, never with atomics: blocks leave partial sums in a workspace, in double so that no
// error grows with the size of a map, and a second kernel adds them up in an order that the sizes alone decide.
#pragma once

#include "cuda/pack.cuh"

namespace fastbound::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kWarps = RowTiles::kThreads / 32;  // of a block that works on rows, or on sums of a first stage

template <typename T>
__device__ T warp_sum(T value) {  // in lane 0
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(kFullWarp, value, offset);
  return value;
}

// The sums of a thread, for each element of its packs.
template <int kSums, int kCount>
struct Sums {
  double values[kSums][kCount] = {};

  template <typename A>
  __device__ void add(int which, int k, A term) {
    values[which][k] += static_cast<double>(term);
  }

  // To partial [parts, kSums, period].
  __device__ void leave(const Sweep& sweep, Index block, double* partial) const {
    __shared__ double shared[Sweep::kThreads * kCount];
    const Index column = block % sweep.columns, part = block / sweep.columns;
    const int thread = threadIdx.x;
#pragma unroll
    for (int which = 0; which < kSums; ++which) {
      double* to = partial + (part * kSums + which) * sweep.period;
      if (sweep.innermost) {
        if (thread < sweep.lanes)
#pragma unroll
          for (int k = 0; k < kCount; ++k) shared[thread * kCount + k] = values[which][k];
        __syncthreads();
        const Index first = column * Sweep::kThreads * kCount, left = sweep.period - first;
        const int width = static_cast<int>(left < sweep.lanes * kCount ? left : sweep.lanes * kCount);
        for (int position = thread; position < width; position += blockDim.x) {
          double total = 0;
          for (int i = position; i < sweep.lanes * kCount; i += width) total += shared[i];
          to[first + position] = total;
        }
      } else {
        double total = 0;
#pragma unroll
        for (int k = 0; k < kCount; ++k) total += values[which][k];
        total = warp_sum(total);
        if (thread % 32 == 0) shared[thread / 32] = total;
        __syncthreads();
        if (thread == 0) {
          for (int warp = 1; warp < static_cast<int>(blockDim.x) / 32; ++warp) total += shared[warp];
          to[column] = total;
        }
      }
      __syncthreads();
    }
  }
};

// The second stage of Sums, for kEndChannels channels a block: neighbours in memory, so that a warp reads whole
// sectors, kEndThreads / kEndChannels parts at a time.
constexpr int kEndChannels = 4, kEndThreads = 1024;

inline Index end_blocks(Index channels) { return ceil_div(channels, kEndChannels); }

// The channel of the thread to which `channel_totals` gives all sums; of any other thread, none.
__device__ inline Index end_channel() {
  return threadIdx.x < kEndChannels ? static_cast<Index>(blockIdx.x) * kEndChannels + threadIdx.x : INT64_MAX;
}

template <int kSums>
__device__ void channel_totals(const double* partial /* [parts, kSums, period] */, Index parts, Index period,
                               Index channels, double* totals /* [kSums] */) {
  __shared__ double shared[kSums][kEndThreads / 32][kEndChannels];
  const int thread = threadIdx.x, lane = thread % 32;
  const Index channel = static_cast<Index>(blockIdx.x) * kEndChannels + thread % kEndChannels;
#pragma unroll
  for (int which = 0; which < kSums; ++which) totals[which] = 0;
  for (Index part = thread / kEndChannels; part < parts; part += kEndThreads / kEndChannels)
    for (Index position = channel; channel < channels && position < period; position += channels)
#pragma unroll
      for (int which = 0; which < kSums; ++which) totals[which] += partial[(part * kSums + which) * period + position];
#pragma unroll
  for (int which = 0; which < kSums; ++which) {
    double total = totals[which];
#pragma unroll
    for (int offset = 16; offset >= kEndChannels; offset /= 2) total += __shfl_down_sync(kFullWarp, total, offset);
    if (lane < kEndChannels) shared[which][thread / 32][lane] = total;
  }
  __syncthreads();
  if (thread >= kEndChannels) return;
#pragma unroll
  for (int which = 0; which < kSums; ++which) {
    totals[which] = 0;
    for (int warp = 0; warp < kEndThreads / 32; ++warp) totals[which] += shared[which][warp][thread];
  }
}

template <typename A>
__global__ void __launch_bounds__(kEndThreads)
    channel_sums_end_kernel(const double* __restrict__ partial,  // [parts, 2, period]
                            A* __restrict__ one,                 // [C]
                            A* __restrict__ two,                 // [C]
                            Index parts, Index period, Index channels) {
  double totals[2];
  channel_totals<2>(partial, parts, period, channels, totals);
  const Index channel = end_channel();
  if (channel >= channels) return;
  one[channel] = static_cast<A>(totals[0]);
  two[channel] = static_cast<A>(totals[1]);
}

// Launches it for a pass that has left two sums per channel, to its sum_scale and sum_shift.
template <typename P>
void end_sums(const P& pass, const double* workspace /* [parts, 2, period] */, cudaStream_t stream) {
  const Sweep sweep = pass.sweep();
  launch(P::kName, channel_sums_end_kernel<typename P::T>, end_blocks(pass.channels), kEndThreads, stream, workspace,
         pass.sum_scale, pass.sum_shift, sweep.parts, sweep.period, pass.channels);
}

// Sums over rows [samples, rows, size], with the numbers that each thread keeps for its pack of elements:
// body.start(site) is told where it is, and body.row(position in memory, pack) gives the pack's part in the sum of a
// row.
template <typename S, typename Body>
__device__ void row_sums(const RowTiles& tiles, const S* rows, Body& body, double* partial /* [rows, tiles] */) {
  using A = Compute<S>;
  constexpr int kInFlight = 4;
  __shared__ A shared[2][kInFlight][kWarps];
  const Index block = blockIdx.x, at_tile = block / tiles.chunks;
  const Index sample = at_tile / tiles.tiles, tile = at_tile % tiles.tiles;
  const Index begin = block % tiles.chunks * tiles.rows_per_chunk;
  const Index end = begin + tiles.rows_per_chunk < tiles.rows ? begin + tiles.rows_per_chunk : tiles.rows;
  const Index position = (tile * tiles.threads + threadIdx.x) * kPack<S>, left = tiles.size - position;
  const int count = left <= 0 ? 0 : static_cast<int>(left < kPack<S> ? left : kPack<S>);
  body.start(Site{sample, position, count});
  int buffer = 0;
  for (Index row = begin; row < end; row += kInFlight, buffer ^= 1) {
    Pack<S> packs[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u)
      packs[u] = load(rows + (sample * tiles.rows + row + u) * tiles.size + position, row + u < end ? count : 0);
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      A total = 0;
      if (row + u < end && count > 0)
        total = body.row((sample * tiles.rows + row + u) * tiles.size + position, packs[u]);
      total = warp_sum(total);
      if (threadIdx.x % 32 == 0) shared[buffer][u][threadIdx.x / 32] = total;
    }
    __syncthreads();  // one is enough: the next round writes to the other buffer
    const int u = threadIdx.x;
    if (u < kInFlight && row + u < end) {
      double total = 0;
      for (int warp = 0; warp < static_cast<int>(blockDim.x) / 32; ++warp)
        total += static_cast<double>(shared[buffer][u][warp]);
      partial[(sample * tiles.rows + row + u) * tiles.tiles + tile] = total;
    }
  }
}

// The second stage of row_sums, one warp per row.
template <typename S>
__global__ void __launch_bounds__(RowTiles::kThreads)
    row_sums_end_kernel(const double* __restrict__ partial,  // [rows, tiles]
                        S* __restrict__ out,                 // [rows]
                        Index rows, Index tiles) {
  const Index row = static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= rows) return;
  double total = 0;
  for (Index tile = threadIdx.x % 32; tile < tiles; tile += 32) total += partial[row * tiles + tile];
  total = warp_sum(total);
  if (threadIdx.x % 32 == 0) out[row] = static_cast<S>(static_cast<Compute<S>>(total));
}

// Launches it for a pass over the rows of `pass.tiles()`.
template <typename P, typename S>
void end_rows(const P& pass, const double* workspace /* [B, S, tiles] */, S* out /* [B, S] */, cudaStream_t stream) {
  const Index rows = pass.batch * pass.functions;
  launch(P::kName, row_sums_end_kernel<S>, ceil_div(rows, kWarps), RowTiles::kThreads, stream, workspace, out, rows,
         pass.tiles().tiles);
}

}  // namespace fastbound::cuda
