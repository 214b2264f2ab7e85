// For the files that are compiled once per instruction set: they define `execute(pass, scratch, threads)` for each
// pass, and by a macro what isa.h calls. `scratch` holds pass.scratch(threads) doubles.
#pragma once

#include "cpu/parallel.h"
#include "pass.h"

namespace fastbound::FASTBOUND_CPU_ISA {

template <typename P>
void run(const P& pass, double* scratch, int threads);

}  // namespace fastbound::FASTBOUND_CPU_ISA

#define FASTBOUND_RUN(Pass, S)                                  \
  template <>                                                   \
  void run(const Pass<S>& pass, double* scratch, int threads) { \
    execute(pass, scratch, threads);                            \
  }
#define FASTBOUND_RUN_NUMBERS(Pass) FASTBOUND_RUN(Pass, float) FASTBOUND_RUN(Pass, double)
#define FASTBOUND_RUN_MAPS(Pass) FASTBOUND_RUN_NUMBERS(Pass) FASTBOUND_RUN(Pass, BFloat16)
