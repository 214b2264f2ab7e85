// How the threads of a launch walk over a map in memory: pure arithmetic of sizes, for the host and the device.
//
// A map is [samples][outer][channels][inner] with inner = 1 (channels innermost) or outer = 1. A thread takes a pack of
// neighbouring elements at a time and meets the same channels at every step, so that per-channel numbers and sums stay
// in its registers: if channels are innermost, a step goes over whole periods of lcm(channels, pack) elements; if they
// are outermost, a block keeps to one channel.
#pragma once

#include <cstdint>

#include "portable.h"

namespace fastbound {

using Index = std::int64_t;

// A map in the memory order [outer][channels][inner].
struct ChannelMap {
  Index outer, channels, inner;
  FASTBOUND_HD Index size() const { return outer * channels * inner; }
};

struct MapShape {
  Index samples, outer, channels, inner;
};

// The elements that a thread reads at one step: `count` from `at` on, 0 if it has nothing to do.
struct Site {
  Index sample, at;
  int count;
};

FASTBOUND_HD Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

struct Sweep {
  static constexpr int kThreads = 128;  // of a block, at most: passes that keep much of it in registers need few

  MapShape shape;
  int pack;
  bool innermost;        // whether channels are
  int threads, lanes;    // of a block, and how many of them work
  Index columns, parts;  // the two dimensions of the grid of blocks: block = part * columns + column
  Index period;          // positions in memory that belong to different sums of a part
  Index group;           // samples at one step
  Index steps_per_group, steps_per_part, steps;
  Index stride, limit;  // elements between two steps, and where a sample (or its plane) ends

  FASTBOUND_HD Index blocks() const { return columns * parts; }
  FASTBOUND_HD Index sample_size() const { return shape.outer * shape.channels * shape.inner; }
};

// Blocks of a sweep whose parts leave sums: enough for every device, few enough to be added up by a second launch.
constexpr Index kBlocksOfSums = 4096;
constexpr Index kAnyBlocks = 0x7fffffff;  // if nothing is left to add up: as many as a launch can have

// Parts have at least `least_steps` steps each, and the launch about `most_blocks` blocks. Nothing here depends on the
// device, so that the order of every sum is the same on all devices.
inline Sweep make_sweep(MapShape shape, int pack, Index least_steps, Index most_blocks) {
  const auto smaller = [](Index a, Index b) { return a < b ? a : b; };
  const auto larger = [](Index a, Index b) { return a > b ? a : b; };
  Sweep s{};
  s.shape = shape;
  s.pack = pack;
  s.innermost = shape.inner == 1;
  s.group = 1;
  if (shape.samples * s.sample_size() == 0) return s;  // no parts, no blocks
  Index lanes;
  if (s.innermost) {
    Index a = shape.channels, b = pack;  // their greatest common divisor
    while (b != 0) {
      const Index rest = a % b;
      a = b;
      b = rest;
    }
    const Index packs = shape.channels / a;  // in a period
    const Index copies = smaller(larger(Sweep::kThreads / packs, 1), ceil_div(s.sample_size(), packs * pack));
    lanes = smaller(copies * packs, Sweep::kThreads);
    s.columns = ceil_div(packs, Sweep::kThreads);
    s.period = packs * pack;
    s.stride = copies * s.period;
    s.limit = s.sample_size();
  } else {
    const Index packs = ceil_div(shape.inner, pack);  // in a plane
    s.group = packs < Sweep::kThreads ? smaller(Sweep::kThreads / packs, shape.samples) : 1;
    lanes = smaller(s.group * packs, Sweep::kThreads);
    s.columns = s.period = shape.channels;
    s.stride = Index(Sweep::kThreads) * pack;
    s.limit = shape.inner;
  }
  s.lanes = static_cast<int>(lanes);
  s.threads = static_cast<int>(ceil_div(lanes, 32) * 32);
  s.steps_per_group = ceil_div(s.limit, s.stride);
  s.steps = ceil_div(shape.samples, s.group) * s.steps_per_group;
  s.steps_per_part = larger(ceil_div(s.steps, larger(most_blocks / s.columns, 1)), least_steps);
  s.parts = ceil_div(s.steps, s.steps_per_part);
  return s;
}

// Elements of a pack, the 16 bytes that a thread reads at once.
template <typename S>
constexpr int kPack = 16 / sizeof(S);

// One sample of pixels, or samples of planes.
inline MapShape map_shape(const ChannelMap& map) {
  return map.inner == 1 ? MapShape{1, map.outer, map.channels, 1} : MapShape{map.outer, 1, map.channels, map.inner};
}

// The sweep of a pass that only writes maps; without numbers of channels, all elements belong to one channel.
template <typename S>
Sweep elementwise_sweep(bool channels_matter, const ChannelMap& map) {
  return make_sweep(channels_matter ? map_shape(map) : MapShape{1, map.size(), 1, 1}, kPack<S>, 4, kAnyBlocks);
}

// The sweep of a pass that leaves partial sums of channels.
template <typename S>
Sweep sums_sweep(const ChannelMap& map) {
  return make_sweep(map_shape(map), kPack<S>, 4, kBlocksOfSums);
}

// The position of one thread of a sweep.
class Walker {
 public:
  FASTBOUND_HD Walker(const Sweep& sweep, Index block, int thread) : sweep_(sweep) {
    const Index column = block % sweep.columns, part = block / sweep.columns;
    works_ = thread < sweep.lanes;
    if (sweep.innermost) {
      slot_ = 0;
      plane_ = 0;
      first_ = (column * Sweep::kThreads + thread) * sweep.pack;
      works_ = works_ && (sweep.columns == 1 || first_ < sweep.period);
    } else {
      const Index packs = ceil_div(sweep.limit, sweep.pack);
      slot_ = sweep.group > 1 ? thread / packs : 0;
      plane_ = column * sweep.limit;
      first_ = (thread - slot_ * packs) * sweep.pack;
    }
    column_ = column;
    step_ = part * sweep.steps_per_part;
    const Index stop = step_ + sweep.steps_per_part;
    stop_ = stop < sweep.steps ? stop : sweep.steps;
    group_ = step_ / sweep.steps_per_group;
    within_ = step_ - group_ * sweep.steps_per_group;
  }

  FASTBOUND_HD bool done() const { return step_ >= stop_; }

  // Returns the site of this step and moves on to the next. Empty after the last step.
  FASTBOUND_HD Site next() {
    const Index sample = group_ * sweep_.group + slot_, position = within_ * sweep_.stride + first_;
    const Index left = sweep_.limit - position;
    const bool there = works_ && step_ < stop_ && sample < sweep_.shape.samples && left > 0;
    ++step_;
    if (++within_ == sweep_.steps_per_group) {
      within_ = 0;
      ++group_;
    }
    return {sample, sample * sweep_.sample_size() + plane_ + position,
            there ? static_cast<int>(left < sweep_.pack ? left : sweep_.pack) : 0};
  }

  // The channel of element k of every pack of this thread.
  FASTBOUND_HD Index channel(int k) const { return sweep_.innermost ? (first_ + k) % sweep_.shape.channels : column_; }

 private:
  const Sweep& sweep_;
  Index column_, slot_, plane_, first_, step_, stop_, group_, within_;
  bool works_;
};

// Sums over the elements of each sample, for several rows that all pass over the same elements: a block takes one tile
// of packs of one sample, and `chunk` rows. block = (sample * tiles + tile) * chunks + chunk.
struct RowTiles {
  static constexpr int kThreads = 256;
  static constexpr Index kEnoughBlocks = 2048, kLeastRows = 8;

  Index samples, rows, size;
  int pack, threads;
  Index tiles, rows_per_chunk, chunks;

  FASTBOUND_HD Index blocks() const { return samples * tiles * chunks; }
};

inline RowTiles make_row_tiles(Index samples, Index rows, Index size, int pack) {
  RowTiles t{};
  t.samples = samples;
  t.rows = rows;
  t.size = size;
  t.pack = pack;
  const Index packs = ceil_div(size, pack);
  t.threads = static_cast<int>(packs < RowTiles::kThreads ? ceil_div(packs, 32) * 32 : RowTiles::kThreads);
  t.tiles = packs == 0 ? 0 : ceil_div(packs, t.threads);
  const Index wanted = ceil_div(RowTiles::kEnoughBlocks, samples * t.tiles > 0 ? samples * t.tiles : 1);
  const Index each = ceil_div(rows, wanted);
  t.rows_per_chunk = each > RowTiles::kLeastRows ? each : RowTiles::kLeastRows;
  t.chunks = ceil_div(rows, t.rows_per_chunk);
  return t;
}

}  // namespace fastbound
