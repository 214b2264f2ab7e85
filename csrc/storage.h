// The types that maps are stored in on a CPU, and those of the computation everywhere.
#pragma once

#include <cstdint>

#include "portable.h"

namespace fastbound {

// The upper half of a float, for storage only: it is read as float, and rounded to nearest even when it is written.
struct BFloat16 {
  std::uint16_t bits;

  // Written member by member: a loop that copies whole structs is not vectorised by g++.
  FASTBOUND_HOST BFloat16& operator=(float value) {
    std::uint32_t word;
    __builtin_memcpy(&word, &value, sizeof word);
    const std::uint32_t rounded = word + 0x7fff + ((word >> 16) & 1);
    const bool nan = (word & 0x7fffffff) > 0x7f800000;  // rounding could carry it into infinity
    bits = static_cast<std::uint16_t>((nan ? (word | 0x400000) : rounded) >> 16);
    return *this;
  }
  FASTBOUND_HOST operator float() const {
    const std::uint32_t word = static_cast<std::uint32_t>(bits) << 16;
    float value;
    __builtin_memcpy(&value, &word, sizeof value);
    return value;
  }
};

// The type of the computation, in which per-channel numbers are stored too: float, or double for double.
template <typename S>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <typename S>
using Compute = typename ComputeType<S>::type;

}  // namespace fastbound
