#include "isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace fastbound {
namespace {

Isa detect() {
  Isa best = Isa::base;
#ifdef FASTBOUND_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    best = Isa::avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      best = Isa::avx512;
  }
#endif
  const char* wanted = std::getenv("FASTBOUND_ISA");
  if (wanted == nullptr || *wanted == '\0') return best;
  for (const Isa isa : {Isa::base, Isa::avx2, Isa::avx512})
    if (std::string(wanted) == isa_name(isa)) return isa < best ? isa : best;
  throw std::invalid_argument(std::string("FASTBOUND_ISA must be base, avx2 or avx512, got '") + wanted + "'");
}

}  // namespace

Isa active_isa() {
  static const Isa isa = detect();
  return isa;
}

const char* isa_name(Isa isa) {
  const char* names[] = {"base", "avx2", "avx512"};
  return names[static_cast<int>(isa)];
}

}  // namespace fastbound
