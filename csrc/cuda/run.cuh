// For the CUDA file of each pass: it defines `execute(pass, workspace, stream)`, which launches on the current device,
// does not synchronise and allocates nothing, and by a macro what bind.h calls. `workspace` holds pass.workspace()
// doubles.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/launch.cuh"
#include "pass.h"

namespace fastbound::cuda {

template <typename P>
void run(const P& pass, double* workspace, cudaStream_t stream);

}  // namespace fastbound::cuda

#define FASTBOUND_LAUNCH(Pass, S)                                         \
  template <>                                                             \
  void run(const Pass<S>& pass, double* workspace, cudaStream_t stream) { \
    execute(pass, workspace, stream);                                     \
  }
#define FASTBOUND_LAUNCHES(Pass) \
  FASTBOUND_LAUNCH(Pass, float)  \
  FASTBOUND_LAUNCH(Pass, double) \
  FASTBOUND_LAUNCH(Pass, __half) \
  FASTBOUND_LAUNCH(Pass, __nv_bfloat16)
