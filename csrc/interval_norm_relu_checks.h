// The arguments of the passes of interval_norm_relu, checked for every host file that takes them.
#pragma once

#include "host.h"

namespace fastbound {

using std::int64_t;

// Checks the arguments; true if there is something to do.
inline bool check_shape(int64_t outer, int64_t channels, int64_t inner) {
  require_size(outer, "outer");
  require_size(channels, "channels");
  require_size(inner, "inner");
  return outer > 0 && channels > 0 && inner > 0;
}

inline bool check(int streams, int64_t outer, int64_t channels, int64_t inner, double slope) {
  if (streams != 1 && streams != 2)
    throw std::invalid_argument("streams must be 1 (center) or 2 (nominal, center), got " + std::to_string(streams));
  if (!(slope >= 0 && slope <= 1))
    throw std::invalid_argument("slope must lie in [0, 1], got " + std::to_string(slope));
  return check_shape(outer, channels, inner);
}

inline void check_pair(Address a, Address b, const char* message) { require((a == 0) == (b == 0), message); }

inline bool check_fwd(Address stack, Address radius, Address scale, Address shift, Address out_stack,
                      Address out_radius, int streams, int64_t outer, int64_t channels, int64_t inner, double slope) {
  if (!check(streams, outer, channels, inner, slope)) return false;
  require_pointer(stack, "stack");
  require_pointer(radius, "radius");
  require_pointer(out_stack, "out_stack");
  require_pointer(out_radius, "out_radius");
  check_pair(scale, shift, "scale and shift must be given together");
  return true;
}

inline bool check_bwd_sums(Address grad_stack, Address stack, Address radius, Address scale, Address shift,
                           Address sum_scale, Address sum_shift, int streams, int64_t outer, int64_t channels,
                           int64_t inner, double slope) {
  check(streams, outer, channels, inner, slope);
  if (channels == 0) return false;
  require_pointer(scale, "scale");
  require_pointer(shift, "shift");
  require_pointer(sum_scale, "sum_scale");
  require_pointer(sum_shift, "sum_shift");
  if (outer > 0 && inner > 0) {
    require_pointer(grad_stack, "grad_stack");
    require_pointer(stack, "stack");
    require_pointer(radius, "radius");
  }
  return true;
}

inline bool check_bwd(Address grad_stack, Address stack, Address radius, Address scale, Address shift,
                      Address nominal_mul, Address nominal_add, Address out_grad_stack, Address out_grad_radius,
                      int streams, int64_t outer, int64_t channels, int64_t inner, double slope) {
  if (!check(streams, outer, channels, inner, slope)) return false;
  require_pointer(grad_stack, "grad_stack");
  require_pointer(stack, "stack");
  require_pointer(radius, "radius");
  require_pointer(out_grad_stack, "out_grad_stack");
  require_pointer(out_grad_radius, "out_grad_radius");
  check_pair(scale, shift, "scale and shift must be given together");
  check_pair(nominal_mul, nominal_add, "nominal_mul and nominal_add must be given together");
  require(nominal_mul == 0 || (scale != 0 && streams == 2), "nominal_mul needs scale and a nominal stream");
  return true;
}

}  // namespace fastbound
