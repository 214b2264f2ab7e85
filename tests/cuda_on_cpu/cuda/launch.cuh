// Stands in for csrc/cuda/launch.cuh and the headers of nvcc: kernels run on the processor, so that their indices,
// tails, reductions and vector accesses are tested without a GPU. It cannot show races between blocks and between
// warps, speed, or the liberties of the real memory model.
//
// A block's threads are fibers of one thread of the processor. A warp runs until all its lanes stand at a shuffle, or
// at a barrier of the block, or have returned; lanes that stand at different places, and lanes that have returned
// before a shuffle or a barrier, are errors here.
#pragma once

#include <cuda_runtime_api.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#undef __shared__
#define __shared__ static
#undef __launch_bounds__
#define __launch_bounds__(...)

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim;

namespace fastbound::cuda {
namespace on_cpu {

enum class Stop { running, shuffle, barrier, returned };

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(1 << 16);
  Stop stop = Stop::running;
  int shuffles = 0;
  double exchange[2];  // the values this lane passes on: two, because a lane may be one shuffle ahead of another
};

class Block {
 public:
  template <typename Body>
  void run(int threads, const Body& body) {
    if (static_cast<int>(fibers_.size()) < threads) fibers_.resize(threads);
    threads_ = threads;
    work_ = [](const void* erased) { (*static_cast<const Body*>(erased))(); };
    body_ = &body;
    for (int t = 0; t < threads; ++t) start(fibers_[t]);
    for (bool left = true; left;) {
      left = false;
      for (int warp = 0; warp < threads; warp += 32) left = run_warp(warp) || left;
      for (int t = 0; left && t < threads; ++t) require(fibers_[t].stop == Stop::barrier, "a thread missed a barrier");
      for (int t = 0; left && t < threads; ++t) fibers_[t].stop = Stop::running;
    }
  }

  void wait(Stop stop) {
    Fiber& fiber = fibers_[threadIdx.x];
    fiber.stop = stop;
    swapcontext(&fiber.context, &scheduler_);
  }

  Fiber& lane(int offset) { return fibers_[threadIdx.x + offset]; }

  static Block& current() {
    static Block block;
    return block;
  }

 private:
  static void require(bool condition, const char* message) {
    if (!condition) throw std::logic_error(std::string("cuda_on_cpu: ") + message);
  }

  static void entry() {
    Block& block = current();
    block.work_(block.body_);
    block.fibers_[threadIdx.x].stop = Stop::returned;
  }

  void start(Fiber& fiber) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = &scheduler_;
    fiber.stop = Stop::running;
    fiber.shuffles = 0;
    makecontext(&fiber.context, entry, 0);
  }

  // Until all lanes have returned (false) or stand at a barrier of the block.
  bool run_warp(int first) {
    while (true) {
      for (int t = first; t < first + 32; ++t) {
        if (fibers_[t].stop != Stop::running) continue;
        threadIdx = {static_cast<unsigned>(t), 0, 0};
        swapcontext(&scheduler_, &fibers_[t].context);
      }
      const Stop stop = fibers_[first].stop;
      for (int t = first; t < first + 32; ++t) require(fibers_[t].stop == stop, "the lanes of a warp have diverged");
      if (stop != Stop::shuffle) return stop == Stop::barrier;
      for (int t = first; t < first + 32; ++t) fibers_[t].stop = Stop::running;
    }
  }

  std::vector<Fiber> fibers_;
  int threads_ = 0;
  ucontext_t scheduler_;
  void (*work_)(const void*) = nullptr;
  const void* body_ = nullptr;
};

}  // namespace on_cpu

class DeviceGuard {
 public:
  explicit DeviceGuard(int) {}
};

template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), std::int64_t blocks, int threads, cudaStream_t,
            Arguments... arguments) {
  if (threads % 32 != 0 || threads > 1024 || (blocks > 0 && threads == 0))
    throw std::logic_error(std::string(name) + ": blocks of " + std::to_string(threads) + " threads");
  blockDim = dim3(static_cast<unsigned>(threads));
  for (std::int64_t block = 0; block < blocks; ++block) {
    blockIdx = {static_cast<unsigned>(block), 0, 0};
    on_cpu::Block::current().run(threads, [&] { kernel(arguments...); });
  }
}

}  // namespace fastbound::cuda

inline void __syncthreads() { fastbound::cuda::on_cpu::Block::current().wait(fastbound::cuda::on_cpu::Stop::barrier); }

template <typename T>
T __shfl_down_sync(unsigned mask, T value, int offset) {
  using namespace fastbound::cuda::on_cpu;
  if (mask != 0xffffffffu) throw std::logic_error("cuda_on_cpu: only whole warps shuffle");
  Block& block = Block::current();
  Fiber& mine = block.lane(0);
  const int place = mine.shuffles++ % 2;
  std::memcpy(&mine.exchange[place], &value, sizeof(T));
  block.wait(Stop::shuffle);
  if (threadIdx.x % 32 + offset >= 32) return value;
  std::memcpy(&value, &block.lane(offset).exchange[place], sizeof(T));
  return value;
}
