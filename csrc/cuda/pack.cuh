// Packs of 16 bytes between memory and registers.
#pragma once

#include "cuda/run.cuh"

namespace fastbound::cuda {

template <typename S>
struct alignas(16) Pack {
  S values[kPack<S>];

  __device__ Compute<S> operator[](int k) const { return static_cast<Compute<S>>(values[k]); }
  __device__ void set(int k, Compute<S> value) { values[k] = static_cast<S>(value); }
};

template <typename S>
__device__ bool whole(const S* pointer, int count) {
  return count == kPack<S> && reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

// `count` elements from `pointer` on, the others 0: in one access if the address allows it and none is missing.
template <typename S>
__device__ Pack<S> load(const S* pointer, int count) {
  Pack<S> pack;
  if (whole(pointer, count)) {
    *reinterpret_cast<uint4*>(pack.values) = *reinterpret_cast<const uint4*>(pointer);
  } else {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k) pack.values[k] = k < count ? pointer[k] : static_cast<S>(0.0f);
  }
  return pack;
}

template <typename S>
__device__ void store(S* pointer, const Pack<S>& pack, int count) {
  if (whole(pointer, count)) {
    *reinterpret_cast<uint4*>(pointer) = *reinterpret_cast<const uint4*>(pack.values);
  } else {
#pragma unroll
    for (int k = 0; k < kPack<S>; ++k)
      if (k < count) pointer[k] = pack.values[k];
  }
}

template <typename S>
__device__ Pack<S> load_or_zero(const S* base, Index at, int count) {  // base may be null
  return load(base + (base == nullptr ? 0 : at), base == nullptr ? 0 : count);
}

// Passes over the sites of one thread of a sweep, reading kInFlight of them before working on the first:
// body.load(site) and body.apply(site, loaded).
template <int kInFlight, typename Body>
__device__ void for_sites(Walker walker, Body& body) {
  while (!walker.done()) {
    Site sites[kInFlight];
    decltype(body.load(sites[0])) loaded[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      sites[u] = walker.next();
      loaded[u] = body.load(sites[u]);
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u)
      if (sites[u].count > 0) body.apply(sites[u], loaded[u]);
  }
}

// The values of this thread's channels; `missing` if there are none.
template <int kCount, typename A>
struct PerChannel {
  A values[kCount];

  __device__ PerChannel(const A* source /* [C] or null */, A missing, const Walker& walker) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) values[k] = source == nullptr ? missing : source[walker.channel(k)];
  }
  __device__ A operator[](int k) const { return values[k]; }
};

}  // namespace fastbound::cuda
