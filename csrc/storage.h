// The types that maps are stored in on a CPU.
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

}  // namespace fastbound
