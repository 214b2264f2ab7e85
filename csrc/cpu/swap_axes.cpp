// Compiled once per instruction set. channels_last to NCHW and back: square blocks, so that both sides are read and
// written in whole cache lines.
#include "cpu/swap_axes_cpu.h"

#include "cpu/parallel.h"

namespace fastbound {
namespace FASTBOUND_CPU_ISA {
namespace {

constexpr Index kBlock = 16;

// Four numbers in one register: loops over a square block are not turned into shuffles by compilers.
template <typename T>
struct Four {
  typedef T Vector __attribute__((vector_size(4 * sizeof(T)), aligned(alignof(T)), may_alias));
};

template <typename T>
void square(const T* x, T* out, Index rows, Index columns) {
  using Vector = typename Four<T>::Vector;
  const auto row = [&](Index i) { return *reinterpret_cast<const Vector*>(x + i * columns); };
  const Vector a = row(0), b = row(1), c = row(2), d = row(3);
  const Vector ac_low = __builtin_shufflevector(a, c, 0, 4, 1, 5), ac_high = __builtin_shufflevector(a, c, 2, 6, 3, 7);
  const Vector bd_low = __builtin_shufflevector(b, d, 0, 4, 1, 5), bd_high = __builtin_shufflevector(b, d, 2, 6, 3, 7);
  const auto store = [&](Index j, Vector v) { *reinterpret_cast<Vector*>(out + j * rows) = v; };
  store(0, __builtin_shufflevector(ac_low, bd_low, 0, 4, 1, 5));
  store(1, __builtin_shufflevector(ac_low, bd_low, 2, 6, 3, 7));
  store(2, __builtin_shufflevector(ac_high, bd_high, 0, 4, 1, 5));
  store(3, __builtin_shufflevector(ac_high, bd_high, 2, 6, 3, 7));
}

template <typename T>
void block(const T* x, T* out, Index rows, Index columns) {
  for (Index j = 0; j < kBlock; j += 4)
    for (Index i = 0; i < kBlock; i += 4) square(x + i * columns + j, out + j * rows + i, rows, columns);
}

template <typename T>
void edge(const T* x, T* out, Index rows, Index columns, Index height, Index width) {
  for (Index j = 0; j < width; ++j)
    for (Index i = 0; i < height; ++i) out[j * rows + i] = x[i * columns + j];
}

template <typename T>
void copy(const T* x, T* out, Index outer, Index rows, Index columns, int threads) {
  const Index bands = (rows + kBlock - 1) / kBlock, items = outer * bands;
  const int shares = useful_threads(threads, outer * rows * columns);
  for_each_share(shares, [&](int share) {
    const Index end = share_begin(items, share + 1, shares);
    for (Index item = share_begin(items, share, shares); item < end; ++item) {
      const Index row = item % bands * kBlock, height = smaller(kBlock, rows - row);
      const T* from = x + item / bands * rows * columns + row * columns;
      T* to = out + item / bands * rows * columns + row;
      for (Index column = 0; column < columns; column += kBlock) {
        const Index width = smaller(kBlock, columns - column);
        if (height == kBlock && width == kBlock)
          block(from + column, to + column * rows, rows, columns);
        else
          edge(from + column, to + column * rows, rows, columns, height, width);
      }
    }
  });
}

}  // namespace

template <typename T>
SwapAxes<T> swap_axes() {
  return {copy<T>};
}

template SwapAxes<float> swap_axes<float>();
template SwapAxes<double> swap_axes<double>();

}  // namespace FASTBOUND_CPU_ISA
}  // namespace fastbound
