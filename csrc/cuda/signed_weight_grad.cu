#include "cuda/pack.cuh"
#include "cuda/signed_weight_grad.cuh"
#include "signed_weight_grad.h"

namespace fastbound {
namespace cuda {
namespace {

template <typename S>
struct Add {
  struct Loaded {
    Pack<S> grad, grad_abs, weight;
  };

  Compute<S>* sum;
  const S *grad, *grad_abs, *weight;

  __device__ Loaded load(Site site) const {
    return {cuda::load(grad + site.at, site.count), cuda::load(grad_abs + site.at, site.count),
            cuda::load(weight + site.at, site.count)};
  }

  __device__ void apply(Site site, const Loaded& loaded) const {
    constexpr int kWide = kPack<Compute<S>>;  // sums are wider than halves
#pragma unroll
    for (int begin = 0; begin < kPack<S>; begin += kWide) {
      Pack<Compute<S>> pack;
#pragma unroll
      for (int k = 0; k < kWide; ++k)
        pack.set(k, add_signed(loaded.grad[begin + k], loaded.grad_abs[begin + k], loaded.weight[begin + k]));
      store(sum + site.at + begin, pack, site.count - begin < kWide ? site.count - begin : kWide);
    }
  }
};

template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads) signed_weight_grad_kernel(Compute<S>* sum,                 // [n]
                                                                             const S* grad,                   // [n]
                                                                             const S* __restrict__ grad_abs,  // [n]
                                                                             const S* __restrict__ weight,    // [n]
                                                                             Sweep sweep) {
  const Add<S> body{sum, grad, grad_abs, weight};
  for_sites<2>(Walker(sweep, blockIdx.x, threadIdx.x), body);
}

}  // namespace

template <typename S>
void signed_weight_grad_launch(Compute<S>* sum, const S* grad, const S* grad_abs, const S* weight, Index n,
                               cudaStream_t stream, int device) {
  const DeviceGuard guard(device);
  const Sweep sweep = make_sweep({1, n, 1, 1}, kPack<S>, 2, kAnyBlocks);
  launch("signed_weight_grad", signed_weight_grad_kernel<S>, sweep.blocks(), sweep.threads, stream, sum, grad, grad_abs,
         weight, sweep);
}

#define FASTBOUND_INSTANTIATE(S) \
  template void signed_weight_grad_launch(Compute<S>*, const S*, const S*, const S*, Index, cudaStream_t, int);
FASTBOUND_FOR_EACH_STORAGE(FASTBOUND_INSTANTIATE)
#undef FASTBOUND_INSTANTIATE

}  // namespace cuda
}  // namespace fastbound
