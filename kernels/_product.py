"""One implicit matrix product for a layer's forward pass, its input gradient and a backward bound.

Maps lie with their channels innermost. Output pixel (i, j) of a sample reads, for tap (a, b) of the weight, the input
pixel (i * step + start + a * tap, likewise for columns), which is zero outside the map:

* convolution: step = stride, start = -padding, tap = dilation;
* its transpose (input gradient, CROWN): the pixels of one residue modulo the stride read with step 1 and a negative
  tap, through only those taps that reach them;
* linear layer: one pixel, one tap.

Rows of a tile are output channels, so that W is the left operand: |W| is computed in registers, from which tensor cores
read it. As the right operand it would have to be written back to shared memory first.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load(pointers, mask, INTERPRETED: tl.constexpr):
    """A tile, zero where masked. The interpreter would compute with the bits of bfloat16, so it gets float32."""
    tile = tl.load(pointers, mask=mask, other=0.0)
    if INTERPRETED:
        tile = tile.to(tl.float32)
    return tile


@triton.jit
def _bias_sum(
    constant,  # [B]
    stack,  # [B, *, C]
    map_bias,  # [C]
    sample,
    size,  # of a sample
    channels,  # C
    BLOCK: tl.constexpr,
):
    """``constant[sample]``: the sum of a map times a number per channel."""
    total = tl.zeros((BLOCK,), tl.float32)
    stack += sample.to(tl.int64) * size
    for start in range(0, size, BLOCK):
        place = start + tl.arange(0, BLOCK)
        value = tl.load(stack + place, mask=place < size, other=0.0).to(tl.float32)
        total += value * tl.load(map_bias + place % channels, mask=place < size, other=0.0).to(tl.float32)
    tl.store(constant + sample, tl.sum(total, 0))


# Geometry is not specialised on: a kernel is compiled once for all strides and paddings.
@triton.jit(
    do_not_specialize=[
        *("batch", "height", "width", "rows", "columns", "taps", "row_taps", "row_step", "row_start", "row_tap"),
        *("column_step", "column_start", "column_tap"),
    ]
)
def product_kernel(
    out,  # [N, B, H, W, G M]
    out_radius,  # [B, H, W, G M]
    constant,  # [B]
    stack,  # [N, B, Y, X, G K]
    radius,  # [B, Y, X, G K]
    weight,  # [G M, T, U, K], strided
    bias,  # [G M]
    scale,  # [B], factor of the bias
    map_bias,  # [G K]
    batch,
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
    column_step,
    column_start,
    column_tap,
    out_stream,
    out_sample,
    out_row,
    out_column,
    stack_stream,
    stack_sample,
    stack_row,
    stack_column,
    weight_group,
    weight_feature,
    weight_row,
    weight_column,
    weight_channel,
    STREAMS: tl.constexpr,
    RADIUS: tl.constexpr,
    BIAS: tl.constexpr,
    SCALED: tl.constexpr,
    BIAS_SUM: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    feature_blocks = tl.cdiv(features, BLOCK_M)
    pixel_block = tl.program_id(0) // feature_blocks
    group = tl.program_id(1)
    if BIAS_SUM:
        pixel_blocks = tl.cdiv(batch * height * width, BLOCK_P)
        if pixel_block >= pixel_blocks:  # programs after the tiles of the product: one for each sample
            sample = tl.program_id(0) - pixel_blocks * feature_blocks
            if group == 0:
                width_in_memory = channels * tl.num_programs(1)
                size = rows * columns * width_in_memory
                _bias_sum(constant, stack, map_bias, sample, size, width_in_memory, BLOCK_M * BLOCK_K)
            return

    feature = tl.program_id(0) % feature_blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    pixel = pixel_block * BLOCK_P + tl.arange(0, BLOCK_P)
    sample = (pixel // (height * width)).to(tl.int64)
    i = pixel // width % height
    j = pixel % width
    top = i * row_step + row_start
    left = j * column_step + column_start
    known = pixel < batch * height * width
    feature_mask = feature < features

    weight += group * weight_group + feature[:, None] * weight_feature
    base = sample * stack_sample + group * channels
    first = tl.zeros((BLOCK_M, BLOCK_P), tl.float32)
    second = tl.zeros((BLOCK_M, BLOCK_P), tl.float32)
    wide = tl.zeros((BLOCK_M, BLOCK_P), tl.float32)
    channel_blocks = tl.cdiv(channels, BLOCK_K)
    for step in range(0, taps * channel_blocks):
        a = step // channel_blocks // row_taps
        b = step // channel_blocks % row_taps
        channel = step % channel_blocks * BLOCK_K + tl.arange(0, BLOCK_K)
        y = top + a * row_tap
        x = left + b * column_tap
        channel_mask = channel < channels
        inside = known & (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
        read = channel_mask[:, None] & inside[None, :]
        place = (base + y * stack_row + x * stack_column)[None, :] + channel[:, None]
        w_place = a * weight_row + b * weight_column + channel[None, :] * weight_channel
        w = load(weight + w_place, feature_mask[:, None] & channel_mask[None, :], INTERPRETED)
        first = tl.dot(w, load(stack + place, read, INTERPRETED), first, input_precision=PRECISION)
        if STREAMS == 2:
            other = load(stack + stack_stream + place, read, INTERPRETED)
            second = tl.dot(w, other, second, input_precision=PRECISION)
        if RADIUS:
            r = load(radius + place, read, INTERPRETED)
            wide = tl.dot(tl.abs(w), r, wide, input_precision=PRECISION)

    feature += group * features
    if BIAS:
        term = tl.load(bias + feature, mask=feature_mask, other=0.0).to(tl.float32)[:, None]
        if SCALED:
            term = term * tl.load(scale + sample, mask=known, other=0.0).to(tl.float32)[None, :]
        first += term
        second += term
    place = (sample * out_sample + i * out_row + j * out_column)[None, :] + feature[:, None]
    written = feature_mask[:, None] & known[None, :]
    tl.store(out + place, first, mask=written)
    if STREAMS == 2:
        tl.store(out + out_stream + place, second, mask=written)
    if RADIUS:
        tl.store(out_radius + place, wide, mask=written)
