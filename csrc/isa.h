// Which compiled instruction set runs. Host files only; the files under cpu/ see only their own namespace.
#pragma once

namespace fastbound {

enum class Isa { base, avx2, avx512 };

// The best instruction set of this processor, at most the one that FASTBOUND_ISA names. Throws std::invalid_argument
// for an unknown name.
Isa active_isa();
const char* isa_name(Isa isa);

}  // namespace fastbound

// Declares `template <typename T> Table<T> function()` of every instruction set, and one that picks among them.
#ifdef FASTBOUND_X86
#define FASTBOUND_DECLARE_CPU(Table, function) \
  namespace base {                             \
  template <typename T>                        \
  Table<T> function();                         \
  }                                            \
  namespace avx2 {                             \
  template <typename T>                        \
  Table<T> function();                         \
  }                                            \
  namespace avx512 {                           \
  template <typename T>                        \
  Table<T> function();                         \
  }                                            \
  template <typename T>                        \
  Table<T> function() {                        \
    switch (active_isa()) {                    \
      case Isa::avx512:                        \
        return avx512::function<T>();          \
      case Isa::avx2:                          \
        return avx2::function<T>();            \
      default:                                 \
        return base::function<T>();            \
    }                                          \
  }
#else
#define FASTBOUND_DECLARE_CPU(Table, function) \
  namespace base {                             \
  template <typename T>                        \
  Table<T> function();                         \
  }                                            \
  template <typename T>                        \
  Table<T> function() {                        \
    return base::function<T>();                \
  }
#endif
