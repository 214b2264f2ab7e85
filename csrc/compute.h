// What is computed in for each type that maps are stored in.
#pragma once

namespace fastbound {

// Also what belongs to channels is stored in: float, or double for double.
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
