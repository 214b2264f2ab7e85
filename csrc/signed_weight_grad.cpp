// Host side: checks, dtype and device. No arithmetic.
#include "cpu/signed_weight_grad_cpu.h"
#include "host.h"
#include "isa.h"
#ifdef FASTBOUND_WITH_CUDA
#include "cuda/signed_weight_grad.cuh"
#endif

namespace fastbound {

FASTBOUND_DECLARE_CPU(SignedWeightGrad, signed_weight_grad)

namespace {

// Checks the arguments; true if there is something to do.
bool check(Address sum, Address grad, Address grad_abs, Address weight, std::int64_t n) {
  require_size(n, "n");
  if (n == 0) return false;
  require_pointer(sum, "sum");
  require_pointer(grad, "grad");
  require_pointer(grad_abs, "grad_abs");
  require_pointer(weight, "weight");
  return true;
}

void signed_weight_grad_cpu(int dtype, Address sum, Address grad, Address grad_abs, Address weight, std::int64_t n,
                            int threads) {
  require_threads(threads);
  if (!check(sum, grad, grad_abs, weight, n)) return;
  dispatch_storage(dtype, [&](auto zero) {
    using S = decltype(zero);
    signed_weight_grad<S>().add(out<Compute<S>>(sum), in<S>(grad), in<S>(grad_abs), in<S>(weight), n, threads);
  });
}

#ifdef FASTBOUND_WITH_CUDA
void signed_weight_grad_cuda(int dtype, Address sum, Address grad, Address grad_abs, Address weight, std::int64_t n,
                             Address stream, int device) {
  if (!check(sum, grad, grad_abs, weight, n)) return;
  cuda::dispatch(dtype, [&](auto zero) {
    using S = decltype(zero);
    cuda::signed_weight_grad_launch<S>(out<cuda::Compute<S>>(sum), in<S>(grad), in<S>(grad_abs), in<S>(weight), n,
                                       reinterpret_cast<cudaStream_t>(stream), device);
  });
}
#endif

}  // namespace

void bind_signed_weight_grad(pybind11::module_& m) {
  using pybind11::arg;
  m.def("signed_weight_grad", signed_weight_grad_cpu, arg("dtype"), arg("sum"), arg("grad"), arg("grad_abs"),
        arg("weight"), arg("n"), arg("threads"), NoGil());
#ifdef FASTBOUND_WITH_CUDA
  m.def("signed_weight_grad_cuda", signed_weight_grad_cuda, arg("dtype"), arg("sum"), arg("grad"), arg("grad_abs"),
        arg("weight"), arg("n"), arg("stream"), arg("device"), NoGil());
#endif
}

}  // namespace fastbound
