"""The weight gradient of a layer: ``sum g x`` over all pixels, plus ``sign(W) sum g_r r`` for the radius.

Maps lie with their channels innermost; output pixel (i, j) has read the input as in `_product`. One program computes a
tile for one tap from one part of the pixels; it multiplies its own sum by sign(W), so that the parts simply add up.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastbound.kernels._product import load


@triton.jit(
    do_not_specialize=[
        *("pixels", "part", "height", "width", "rows", "columns", "row_taps", "row_step", "row_start", "row_tap"),
        *("column_step", "column_start", "column_tap"),
    ]
)
def weight_gradient_kernel(
    out,  # [P, G M, T U, K], float32
    grad,  # [N, B, H, W, G M]
    grad_radius,  # [B, H, W, G M]
    stack,  # [N, B, Y, X, G K]
    radius,  # [B, Y, X, G K]
    weight,  # [G M, T U, K]
    pixels,  # B H W
    part,
    height,
    width,
    rows,
    columns,
    features,  # M
    channels,  # K
    row_taps,  # U
    row_step,
    row_start,
    row_tap,
    column_step,
    column_start,
    column_tap,
    out_part,
    out_feature,
    grad_stream,
    grad_column,
    stack_stream,
    stack_sample,
    stack_row,
    stack_column,
    STREAMS: tl.constexpr,
    RADIUS: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    feature_blocks = tl.cdiv(features, BLOCK_M)
    channel_blocks = tl.cdiv(channels, BLOCK_K)
    tile = tl.program_id(0) // feature_blocks
    tap = tile // channel_blocks
    feature = tl.program_id(0) % feature_blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    channel = tile % channel_blocks * BLOCK_K + tl.arange(0, BLOCK_K)
    feature_mask = (feature < features)[:, None]
    channel_mask = (channel < channels)[None, :]
    group = tl.program_id(1)
    feature = (feature + group * features)[:, None]
    top = tap // row_taps * row_tap + row_start
    left = tap % row_taps * column_tap + column_start

    total = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
    wide = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
    begin = tl.program_id(2) * part
    end = tl.minimum(begin + part, pixels)
    for start in range(begin, end, BLOCK_P):
        pixel = start + tl.arange(0, BLOCK_P)
        known = pixel < end
        y = pixel // width % height * row_step + top
        x = pixel % width * column_step + left
        inside = known & (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
        g_mask = feature_mask & known[None, :]
        s_mask = inside[:, None] & channel_mask
        sample = (pixel // (height * width)).to(tl.int64)
        g_place = pixel.to(tl.int64)[None, :] * grad_column + feature
        s_place = sample * stack_sample + y * stack_row + x * stack_column
        s_place = s_place[:, None] + (group * channels + channel)[None, :]
        g = load(grad + g_place, g_mask, INTERPRETED)
        total = tl.dot(g, load(stack + s_place, s_mask, INTERPRETED), total, input_precision=PRECISION)
        if STREAMS == 2:
            g = load(grad + grad_stream + g_place, g_mask, INTERPRETED)
            s = load(stack + stack_stream + s_place, s_mask, INTERPRETED)
            total = tl.dot(g, s, total, input_precision=PRECISION)
        if RADIUS:
            g = load(grad_radius + g_place, g_mask, INTERPRETED)
            r = load(radius + s_place, s_mask, INTERPRETED)
            wide = tl.dot(g, r, wide, input_precision=PRECISION)

    place = feature * out_feature + tap * channels + channel[None, :]
    mask = feature_mask & channel_mask
    if RADIUS:
        w = tl.load(weight + place, mask=mask, other=0.0).to(tl.float32)
        total += tl.where(w > 0, wide, tl.where(w < 0, -wide, 0.0))
    tl.store(out + tl.program_id(2).to(tl.int64) * out_part + place, total, mask=mask)
