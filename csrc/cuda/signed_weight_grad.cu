#include "cuda/pack.cuh"
#include "signed_weight_grad.h"

namespace fastbound::cuda {
namespace {

template <typename S>
struct Add {
  struct Loaded {
    Pack<S> grad, grad_abs, weight;
  };

  const SignedWeightGrad<S>& pass;

  __device__ Loaded load(Site site) const {
    return {cuda::load(pass.grad + site.at, site.count), cuda::load(pass.grad_abs + site.at, site.count),
            cuda::load(pass.weight + site.at, site.count)};
  }

  __device__ void apply(Site site, const Loaded& loaded) const {
    constexpr int kWide = kPack<Compute<S>>;  // sums are wider than halves
#pragma unroll
    for (int begin = 0; begin < kPack<S>; begin += kWide) {
      Pack<Compute<S>> pack;
#pragma unroll
      for (int k = 0; k < kWide; ++k)
        pack.set(k, add_signed(loaded.grad[begin + k], loaded.grad_abs[begin + k], loaded.weight[begin + k]));
      store(pass.sum + site.at + begin, pack, site.count - begin < kWide ? site.count - begin : kWide);
    }
  }
};

template <typename S>
__global__ void __launch_bounds__(Sweep::kThreads)
    signed_weight_grad_kernel(const __grid_constant__ SignedWeightGrad<S> pass, const __grid_constant__ Sweep sweep) {
  const Add<S> body{pass};
  for_sites<2>(Walker(sweep, blockIdx.x, threadIdx.x), body);
}

template <typename S>
void execute(const SignedWeightGrad<S>& pass, double*, cudaStream_t stream) {
  const Sweep sweep = pass.sweep();
  launch(pass.kName, signed_weight_grad_kernel<S>, sweep.blocks(), sweep.threads, stream, pass, sweep);
}

}  // namespace

FASTBOUND_LAUNCHES(SignedWeightGrad)

}  // namespace fastbound::cuda
