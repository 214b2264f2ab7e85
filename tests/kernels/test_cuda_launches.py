"""A launch of the CUDA kernels covers every element once, even beyond 2^31; the sweep runs on the processor."""

from __future__ import annotations

import pytest
import torch
from cuda_on_cpu.build import load

pytestmark = pytest.mark.cuda_on_cpu


SHAPES = [  # samples, outer, channels, inner
    *[(1, outer, channels, 1) for outer, channels in ((1, 1), (7, 3), (1000, 64), (33, 1100), (5, 513), (900, 17))],
    *[(samples, outer, channels, 1) for samples, outer, channels in ((3, 5, 7), (4, 64, 12), (2, 3, 515))],
    *[(samples, 1, channels, inner) for samples, channels, inner in ((1, 1, 5), (5, 3, 9), (40, 6, 16), (2, 3, 5000))],
    *[(1, 0, 3, 1), (0, 1, 3, 5), (2, 4, 0, 1)],
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("pack", [2, 4, 8])
@pytest.mark.parametrize("least_steps, most_blocks", [(1, 4096), (4, 2**31 - 1), (2, 3)])
def test_every_element_is_met_once_by_a_thread_of_its_channel(shape, pack, least_steps, most_blocks):
    samples, outer, channels, inner = shape
    size = outer * channels * inner
    module = load()
    blocks, threads, parts, period = module.sweep(shape, pack, least_steps, most_blocks)
    met = torch.zeros(samples * size, dtype=torch.long)
    for sample, at, count, channel in module.visits(shape, pack, least_steps, most_blocks, 0, blocks):
        assert 1 <= count <= pack
        met[at : at + count] += 1
        for k in range(count):
            assert (at + k) // size == sample
            assert (at + k) // inner % channels == ((channel + k) % channels if inner == 1 else channel)
    assert (met == 1).all()
    assert threads % 32 == 0 and threads <= 128
    if samples * size:
        assert period % channels == 0 and parts * (blocks // parts) == blocks
        assert blocks // parts * max(1, most_blocks // (blocks // parts)) >= blocks


@pytest.mark.parametrize(
    "shape", [(1, 3 * 2**29, 4, 1), (2**20, 1, 64, 2**10), (1, 2**36, 1, 1), (2**18, 1, 2**12, 49)]
)
def test_more_than_two_to_the_31_elements(shape):
    """The last block meets the last element; addresses are 64 bits wide."""
    samples, outer, channels, inner = shape
    size = samples * outer * channels * inner
    module = load()
    blocks, *_ = module.sweep(shape, 4, 4, 2**31 - 1)
    assert 0 < blocks <= 2**31 - 1 and size > 2**31
    last = module.visits(shape, 4, 4, 2**31 - 1, blocks - 1, blocks)
    assert max(at + count for _, at, count, _ in last) == size
    assert min(at for _, at, _, _ in last) > 2**31


@pytest.mark.parametrize(
    "samples, rows, size", [(1, 1, 1), (3, 9, 700), (128, 9, 65536), (2, 5000, 31), (4, 0, 9), (4, 3, 0)]
)
@pytest.mark.parametrize("pack", [2, 4, 8])
def test_tiles_cover_rows_and_elements(samples, rows, size, pack):
    blocks, threads, tiles, rows_per_chunk, chunks = load().row_tiles(samples, rows, size, pack)
    assert blocks == samples * tiles * chunks
    assert tiles * threads * pack >= size and (tiles - 1) * threads * pack < max(size, 1)
    assert chunks * rows_per_chunk >= rows and (chunks - 1) * rows_per_chunk < max(rows, 1)
    assert threads % 32 == 0 and threads <= 256
