"""One half of a power iteration, ``W v`` or ``W^T v``, in one launch that also normalises its input.

A product also writes the sums of the squares of its output, one for each program; the next product divides its input by
the root of their total. So normalisation needs no launch of its own, and no program waits for another. Squares are
float64, in which those of float32 numbers neither overflow nor vanish, and are added in a fixed order, so that results
repeat to the bit.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _factor(
    squares,  # [parts], float64
    parts,
):
    """The factor that scales a vector with these sums of squares to norm 1; it is 1 for a vector of zeros."""
    total = tl.zeros((256,), tl.float64)
    for start in range(0, parts, 256):
        place = start + tl.arange(0, 256)
        total += tl.load(squares + place, mask=place < parts, other=0.0)
    norm = tl.sqrt(tl.sum(total, 0))
    return 1.0 / tl.where(norm == 0, 1.0, norm)


@triton.jit
def _load_scaled(pointers, mask, factor):
    """A tile times a factor, zero where masked; rounded only once, however large or small both are."""
    return (tl.load(pointers, mask=mask, other=0.0).to(tl.float64) * factor).to(tl.float32)


@triton.jit(do_not_specialize=["parts"])
def linear_kernel(
    out,  # [M]
    out_squares,  # [programs], float64
    vector,  # [K]
    squares,  # [parts], float64; of the vector if NORMALISE
    weight,  # [M, K], strided
    parts,
    features,  # M
    channels,  # K
    weight_feature,
    weight_channel,
    NORMALISE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    factor = _factor(squares, parts) if NORMALISE else 1.0
    feature = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    feature_mask = feature < features
    weight += feature.to(tl.int64)[:, None] * weight_feature
    terms = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
    for start in range(0, channels, BLOCK_K):
        channel = start + tl.arange(0, BLOCK_K)
        channel_mask = channel < channels
        x = _load_scaled(vector + channel, channel_mask, factor)
        w_place = channel.to(tl.int64)[None, :] * weight_channel
        w = tl.load(weight + w_place, mask=feature_mask[:, None] & channel_mask[None, :], other=0.0)
        terms += w * x[None, :]
    total = tl.sum(terms, 1)
    tl.store(out + feature, total, mask=feature_mask)
    exact = total.to(tl.float64)
    tl.store(out_squares + tl.program_id(0), tl.sum(exact * exact, 0))


# Sizes and geometry are not specialised on: two kernels serve all convolutions.
@triton.jit(
    do_not_specialize=[
        *("parts", "height", "width", "rows", "columns", "features", "channels", "taps", "row_taps"),
        *("row_step", "row_start", "row_tap", "row_spread"),
        *("column_step", "column_start", "column_tap", "column_spread"),
        *("weight_group", "weight_feature", "weight_channel"),
    ]
)
def conv2d_kernel(
    out,  # [G M, H, W]
    out_squares,  # [programs], float64
    maps,  # [G K, Y, X]
    squares,  # [parts], float64; of the maps if NORMALISE
    weight,  # [G, M, K, T U], strided, taps dense
    parts,
    height,
    width,
    rows,
    columns,
    features,  # M
    channels,  # K
    taps,  # T U
    row_taps,  # U
    row_step,
    row_start,
    row_tap,
    row_spread,
    column_step,
    column_start,
    column_tap,
    column_spread,
    weight_group,
    weight_feature,
    weight_channel,
    NORMALISE: tl.constexpr,
    SPREAD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Output pixel (i, j) reads, for tap (a, b), the pixel (y, x) with ``y row_spread = i row_step + row_start +
    a row_tap``, and likewise for columns, if that is a pixel. Forward, the step is the stride; transposed, the spread.
    """
    factor = _factor(squares, parts) if NORMALISE else 1.0
    feature_blocks = tl.cdiv(features, BLOCK_M)
    group = tl.program_id(1)
    feature = tl.program_id(0) % feature_blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    pixel = tl.program_id(0) // feature_blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    feature_mask = feature < features
    known = pixel < height * width
    top = pixel // width * row_step + row_start
    left = pixel % width * column_step + column_start

    weight += group * weight_group + feature[:, None] * weight_feature
    maps += group * channels * rows * columns
    total = tl.zeros((BLOCK_M, BLOCK_P), tl.float32)
    for start in range(0, channels * taps, BLOCK_K):
        term = start + tl.arange(0, BLOCK_K)
        channel = term // taps
        tap = term % taps
        term_mask = channel < channels
        y = top[None, :] + (tap // row_taps * row_tap)[:, None]
        x = left[None, :] + (tap % row_taps * column_tap)[:, None]
        inside = (y >= 0) & (x >= 0) & known[None, :] & term_mask[:, None]
        if SPREAD:
            inside = inside & (y % row_spread == 0) & (x % column_spread == 0)
            y = y // row_spread
            x = x // column_spread
        inside = inside & (y < rows) & (x < columns)
        read = _load_scaled(maps + (channel * rows * columns)[:, None] + y * columns + x, inside, factor)
        w_place = (channel * weight_channel + tap)[None, :]
        w = tl.load(weight + w_place, mask=feature_mask[:, None] & term_mask[None, :], other=0.0)
        total = tl.dot(w, read, total, input_precision="ieee")

    place = (group * features + feature)[:, None] * (height * width) + pixel[None, :]
    tl.store(out + place, total, mask=feature_mask[:, None] & known[None, :])
    exact = total.to(tl.float64)
    program = group * tl.num_programs(0) + tl.program_id(0)
    tl.store(out_squares + program, tl.sum(tl.sum(exact * exact, 1), 0))


@triton.jit(do_not_specialize=["parts"])
def unit_kernel(
    out,  # [N]
    vector,  # [N]
    squares,  # [parts], float64
    parts,
    size,  # N
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    place = tl.program_id(0) * BLOCK_M * BLOCK_K + tl.arange(0, BLOCK_M * BLOCK_K)
    mask = place < size
    tl.store(out + place, _load_scaled(vector + place, mask, _factor(squares, parts)), mask=mask)
