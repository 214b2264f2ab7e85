// What a pass is: a struct of its arguments whose `fields(f)` names each of them once. Checks, binding and stub
// (bind.h), the choice of an instruction set (isa.h) and of a device follow from it. The vocabulary of `fields`:
//
//   f.sizes("outer", outer, "channels", channels)  from 0 on; they come first, because shapes are made of them
//   f.integer("streams", streams, 1, 2)          an integer between two limits; f.number: the same for a real number
//   f.in("radius", radius, {outer, channels})    a tensor that is read, with its shape in memory; f.out: is written
//   f.in("scale", scale, {channels}, kOrNull)    the same, or None
//   f.indices("labels", labels, {batch}, 0, classes)  int64 in [0, classes); values are checked on a CPU alone
//   f.out("sum", sum, {count}, kNeeded, grad)    an output that may take the memory of an input
//   f.require(condition, "sentence")             whatever else must hold
//
// Every tensor is checked: dtype, device, number of elements, one dense block of memory in the order of its shape, and
// that nothing that is written overlaps anything else.
#pragma once

#include "portable.h"
#include "storage.h"
#include "sweep.h"

namespace fastbound {

enum Need { kNeeded, kOrNull };

template <typename... S>
struct Types {};

// A pass on a CPU, for maps stored in these types. `scratch(threads)` and `workspace()` are the doubles that it needs
// on a CPU and on a GPU.
struct PassOnCpu {
  using Cpu = Types<float, double>;
  static constexpr bool kOnCuda = false;
  Index scratch(int /* threads */) const { return 0; }
  Index workspace() const { return 0; }
};

// A pass with CUDA code too, there for maps in half precision as well.
struct PassOnBoth : PassOnCpu {
  static constexpr bool kOnCuda = true;
};

// A pass over maps in the memory order [outer][channels][inner], on a CPU also for those in bfloat16.
struct PassOnMaps : PassOnBoth, ChannelMap {
  using Cpu = Types<float, double, BFloat16>;

  template <typename Fields>
  void sizes(Fields& f) {
    f.sizes("outer", outer, "channels", channels, "inner", inner);
  }
};

}  // namespace fastbound
