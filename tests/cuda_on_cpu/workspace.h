// Stands in for csrc/workspace.h: memory of the processor, filled with NaN and fenced, so that sums which are read
// before they are written show, and a launch that wrote beyond them is an error.
#pragma once

#include <cmath>
#include <exception>
#include <stdexcept>
#include <vector>

#include "torch.h"

namespace fastbound {

class Workspace {
 public:
  Workspace(Index doubles, dlpack::Device) : memory_(doubles == 0 ? 0 : doubles + 2 * kFence, std::nan("")) {
    for (Index i = 0; doubles != 0 && i < kFence; ++i) memory_[i] = memory_[kFence + doubles + i] = kMark;
  }
  ~Workspace() noexcept(false) {
    const Index size = static_cast<Index>(memory_.size());
    bool whole = true;
    for (Index i = 0; size != 0 && i < kFence; ++i)
      whole = whole && memory_[i] == kMark && memory_[size - 1 - i] == kMark;
    if (!whole && std::uncaught_exceptions() == 0)
      throw std::logic_error("cuda_on_cpu: a launch wrote outside its workspace");
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  double* data() const { return memory_.empty() ? nullptr : const_cast<double*>(memory_.data()) + kFence; }

 private:
  static constexpr Index kFence = 64;
  static constexpr double kMark = 12345.0;
  std::vector<double> memory_;
};

}  // namespace fastbound
