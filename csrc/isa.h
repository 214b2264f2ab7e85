// Which compiled instruction set runs. Host files only; the files under cpu/ see only their own namespace.
#pragma once

namespace fastbound {

enum class Isa { base, avx2, avx512 };

// The best instruction set of this processor, at most the one that FASTBOUND_ISA names. Throws std::invalid_argument
// for an unknown name.
Isa active_isa();
const char* isa_name(Isa isa);

// Defined by the CPU file of each pass, once per instruction set.
#define FASTBOUND_DECLARE_RUN(isa)                       \
  namespace isa {                                        \
  template <typename P>                                  \
  void run(const P& pass, double* scratch, int threads); \
  }
FASTBOUND_DECLARE_RUN(base)
#ifdef FASTBOUND_X86
FASTBOUND_DECLARE_RUN(avx2)
FASTBOUND_DECLARE_RUN(avx512)
#endif
#undef FASTBOUND_DECLARE_RUN

template <typename P>
void run_best(const P& pass, double* scratch, int threads) {
#ifdef FASTBOUND_X86
  if (active_isa() == Isa::avx512) return avx512::run(pass, scratch, threads);
  if (active_isa() == Isa::avx2) return avx2::run(pass, scratch, threads);
#endif
  base::run(pass, scratch, threads);
}

}  // namespace fastbound
