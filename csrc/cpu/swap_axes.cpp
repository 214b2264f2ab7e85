// Compiled once per instruction set. channels_last to NCHW and back, in square blocks, so that whole cache lines are
// read and written.
#include "swap_axes.h"

#include "cpu/run.h"

namespace fastbound::FASTBOUND_CPU_ISA {
namespace {

constexpr Index kBlock = 16;

// Four numbers in one register: loops over a square block are not turned into shuffles by compilers.
template <typename T>
struct Four {
  typedef T Vector __attribute__((vector_size(4 * sizeof(T)), aligned(alignof(T)), may_alias));
  typedef decltype(Vector() < Vector()) Mask;
};

// (a0, b0, a1, b1) and (a2, b2, a3, b3)
template <typename T>
struct Interleaved {
  using Vector = typename Four<T>::Vector;
  Vector low, high;
#ifdef __clang__
  Interleaved(const Vector& a, const Vector& b)
      : low(__builtin_shufflevector(a, b, 0, 4, 1, 5)), high(__builtin_shufflevector(a, b, 2, 6, 3, 7)) {}
#else
  using Mask = typename Four<T>::Mask;
  Interleaved(const Vector& a, const Vector& b)
      : low(__builtin_shuffle(a, b, Mask{0, 4, 1, 5})), high(__builtin_shuffle(a, b, Mask{2, 6, 3, 7})) {}
#endif
};

template <typename T>
void square(const T* x, T* out, Index rows, Index columns) {
  using Vector = typename Four<T>::Vector;
  const auto row = [&](Index i) -> const Vector& { return *reinterpret_cast<const Vector*>(x + i * columns); };
  const Interleaved<T> even(row(0), row(2)), odd(row(1), row(3));
  const Interleaved<T> low(even.low, odd.low), high(even.high, odd.high);
  const auto store = [&](Index j, const Vector& v) { *reinterpret_cast<Vector*>(out + j * rows) = v; };
  store(0, low.low);
  store(1, low.high);
  store(2, high.low);
  store(3, high.high);
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
void execute(const SwapAxes<T>& pass, double*, int threads) {
  const Index rows = pass.rows, columns = pass.columns;
  const Index bands = (rows + kBlock - 1) / kBlock, items = pass.outer * bands;
  const int shares = useful_threads(threads, pass.outer * rows * columns);
  for_each_share(shares, [&](int share) {
    const Index end = share_begin(items, share + 1, shares);
    for (Index item = share_begin(items, share, shares); item < end; ++item) {
      const Index row = item % bands * kBlock, height = smaller(kBlock, rows - row);
      const T* from = pass.x + item / bands * rows * columns + row * columns;
      T* to = pass.out + item / bands * rows * columns + row;
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

FASTBOUND_RUN_NUMBERS(SwapAxes)

}  // namespace fastbound::FASTBOUND_CPU_ISA
