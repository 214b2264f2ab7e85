// What the arithmetic headers need to be compiled by g++ and nvcc alike.
#pragma once

// Always inlined: an out-of-line copy in an AVX-512 file would be a weak symbol that the linker may pick for every
// caller.
#ifdef __CUDACC__
#define FASTBOUND_HD __host__ __device__ __forceinline__
#else
#define FASTBOUND_HD __attribute__((always_inline)) inline
#endif
