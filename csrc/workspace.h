// The memory that a launch on a GPU borrows from torch for its partial sums.
#pragma once

#include "torch.h"

namespace fastbound {

class Workspace {
 public:
  Workspace(Index doubles, dlpack::Device device)
      : memory_(doubles == 0 ? nullptr : Torch::get().allocate(doubles, device)) {}
  ~Workspace() {
    if (memory_ != nullptr) memory_->deleter(memory_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  double* data() const { return memory_ == nullptr ? nullptr : static_cast<double*>(memory_->tensor.data); }

 private:
  dlpack::ManagedTensor* memory_;
};

}  // namespace fastbound
