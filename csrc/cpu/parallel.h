// Work sharing for the files that are compiled once per instruction set. No standard library: its templates would be
// weak symbols, and the linker might pick the AVX-512 copy for a processor without it.
#pragma once

#include <cstdint>

namespace {

using Index = std::int64_t;

inline Index smaller(Index a, Index b) { return a < b ? a : b; }

// Threads worth waking for `work` element visits; a parallel region costs about 2 us of wake-up.
inline int useful_threads(int threads, Index work) {
  const Index limit = 1 + work / 16384;
  return static_cast<int>(smaller(threads, limit));
}

// body(share) for every share 0 .. shares-1. One share runs without OpenMP: even an idle region costs 0.35 us.
template <typename Body>
void for_each_share(int shares, Body body) {
  if (shares == 1) return body(0);
#pragma omp parallel for num_threads(shares) schedule(static, 1)
  for (int share = 0; share < shares; ++share) body(share);
}

// The first item of a share; shares are contiguous and depend on nothing but the arguments.
inline Index share_begin(Index items, int share, int shares) {
  return items / shares * share + smaller(share, items % shares);
}

}  // namespace
