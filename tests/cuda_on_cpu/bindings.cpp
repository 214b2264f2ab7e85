// The module: the CUDA code of all passes on tensors of the processor, and the arithmetic of sizes.
#include <pybind11/stl.h>

#include <tuple>
#include <vector>

#include "bind.h"
#include "passes.h"

namespace {

using fastbound::Index;
using Shape = std::tuple<Index, Index, Index, Index>;
using Visit = std::tuple<Index, Index, int, Index>;

fastbound::Sweep sweep_of(Shape shape, int pack, Index least_steps, Index most_blocks) {
  const auto [samples, outer, channels, inner] = shape;
  return fastbound::make_sweep({samples, outer, channels, inner}, pack, least_steps, most_blocks);
}

// The elements that the threads of some blocks read: (sample, first element, count, channel of the first element).
std::vector<Visit> visits(Shape shape, int pack, Index least_steps, Index most_blocks, Index first, Index last) {
  const fastbound::Sweep sweep = sweep_of(shape, pack, least_steps, most_blocks);
  std::vector<Visit> found;
  for (Index block = first; block < (last < sweep.blocks() ? last : sweep.blocks()); ++block)
    for (int thread = 0; thread < sweep.threads; ++thread)
      for (fastbound::Walker walker(sweep, block, thread); !walker.done();) {
        const fastbound::Site site = walker.next();
        if (site.count > 0) found.emplace_back(site.sample, site.at, site.count, walker.channel(0));
      }
  return found;
}

}  // namespace

PYBIND11_MODULE(cuda_on_cpu, m) {
  pybind11::options options;
  options.disable_function_signatures();
  m.attr("passes") = pybind11::dict();
#define FASTBOUND_BIND(Pass) fastbound::bind<fastbound::Pass>(m);
  FASTBOUND_FOR_EACH_PASS(FASTBOUND_BIND)
#undef FASTBOUND_BIND
  m.def("sweep", [](Shape shape, int pack, Index least_steps, Index most_blocks) {
    const fastbound::Sweep s = sweep_of(shape, pack, least_steps, most_blocks);
    return std::make_tuple(s.blocks(), s.threads, s.parts, s.period);
  });
  m.def("visits", visits);
  m.def("row_tiles", [](Index samples, Index rows, Index size, int pack) {
    const fastbound::RowTiles t = fastbound::make_row_tiles(samples, rows, size, pack);
    return std::make_tuple(t.blocks(), t.threads, t.tiles, t.rows_per_chunk, t.chunks);
  });
}
