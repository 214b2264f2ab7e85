// Macros and helpers with which g++ and nvcc both compile the arithmetic headers.
#pragma once

// Always inlined: an out-of-line copy in an AVX-512 file would be a weak symbol that the linker may pick for every
// caller.
#define FASTBOUND_HOST __attribute__((always_inline)) inline
#ifdef __CUDACC__
#define FASTBOUND_HD __host__ __device__ __forceinline__
#else
#define FASTBOUND_HD FASTBOUND_HOST
#endif

namespace fastbound {

template <typename T>
FASTBOUND_HD T absolute(T value) {
  return value < T(0) ? -value : value;
}

// sign(value) * magnitude with sign(0) = 0.
template <typename T>
FASTBOUND_HD T signed_as(T value, T magnitude) {
  return value > T(0) ? magnitude : (value < T(0) ? -magnitude : T(0));
}

}  // namespace fastbound
