// The type of the computation, for each type in which maps are stored.
#pragma once

namespace fastbound {

// Per-channel numbers are stored in it too: float, or double for double.
template <typename S>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <typename S>
using Compute = typename ComputeType<S>::type;

}  // namespace fastbound
