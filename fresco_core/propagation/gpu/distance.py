# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# Triton's functions are compiled from their text; their arguments are pointers and numbers.
"""The distance of two patches in Triton; see `kernels`.

Shapes: a pixel a thread; D = ``DEPTH`` int32 words of a pixel, four bytes each.
"""

import triton
import triton.language as tl

from fresco_core.propagation.gpu import words

STRAIGHT = tl.constexpr(5)
"""Largest patch whose distance is straight code."""

_SHIFT = tl.constexpr(words.SHIFT)


@triton.jit
def _absolute(a, b, PLAIN: tl.constexpr):
    """Differences of four bytes."""
    if PLAIN:
        result = tl.zeros_like(a)
        for byte in tl.static_range(4):
            difference = ((a >> 8 * byte) & 0xFF) - ((b >> 8 * byte) & 0xFF)
            result |= tl.abs(difference) << 8 * byte
        return result
    else:
        return tl.inline_asm_elementwise(
            "{ .reg .u32 zero; mov.u32 zero, 0; vabsdiff4.u32.u32.u32 $0, $1, $2, zero; }",
            "=r,r,r", [a, b], dtype=tl.int32, is_pure=True, pack=1,
        )  # fmt: skip


@triton.jit
def _dot(a, b, sums, PLAIN: tl.constexpr):
    """Sums with the products of four bytes added."""
    if PLAIN:
        for byte in tl.static_range(4):
            sums += ((a >> 8 * byte) & 0xFF) * ((b >> 8 * byte) & 0xFF)
        return sums
    else:
        return tl.inline_asm_elementwise(
            "dp4a.u32.u32 $0, $1, $2, $3;",
            "=r,r,r,r", [a, b, sums], dtype=tl.int32, is_pure=True, pack=1,
        )  # fmt: skip


@triton.jit
def _weighed(light, heavy, table, DEPTH: tl.constexpr, MIXED: tl.constexpr):
    """Cost of the sums of squares (.,D)."""
    d = tl.arange(0, DEPTH)
    cost = light.to(tl.int64) * tl.load(table + d)[None]
    if MIXED:
        cost += heavy.to(tl.int64) * tl.load(table + DEPTH + d)[None]
    return (tl.sum(cost, 1) >> _SHIFT).to(tl.int32)


@triton.jit
def _row(
    source, target, from_source, row, x, live, mask, light, heavy, width,
    P: tl.constexpr, DEPTH: tl.constexpr, MIXED: tl.constexpr, PLAIN: tl.constexpr,
):  # fmt: skip
    """Sums of squares (.,D) with those of a row of the patches added."""
    d = tl.arange(0, DEPTH)[None]
    for dx in tl.static_range(P):
        from_target = row + tl.minimum(tl.maximum(x + (dx - P // 2), 0), width - 1)
        a = tl.load(source + ((from_source + dx)[:, None] * DEPTH + d), live[:, None])
        b = tl.load(target + (from_target[:, None] * DEPTH + d), live[:, None])
        difference = _absolute(a, b, PLAIN)
        light = _dot(difference, difference, light, PLAIN)
        if MIXED:
            heavy = _dot(difference, difference & mask, heavy, PLAIN)
    return light, heavy


@triton.jit
def patch_cost(
    source, target, table, entry, y, x, valid, enough,
    height, width, source_w,
    P: tl.constexpr, DEPTH: tl.constexpr, MIXED: tl.constexpr, EXIT: tl.constexpr,
    PLAIN: tl.constexpr,
):  # fmt: skip
    """Costs of target patches to the source patches of entries; anything from ``enough`` on where
    they reach it, or are not ``valid``.
    """
    mask = tl.load(table + 2 * DEPTH + tl.arange(0, DEPTH)[None])
    first = ((entry >> 16) - P // 2) * source_w + (entry & 0xFFFF) - P // 2
    light = tl.zeros((entry.shape[0], DEPTH), tl.int32)
    heavy = tl.zeros((entry.shape[0], DEPTH), tl.int32)
    live = valid
    # Large patches row by row: as straight code they would take minutes to compile.
    if P <= STRAIGHT:
        for dy in tl.static_range(P):
            row = tl.minimum(tl.maximum(y + (dy - P // 2), 0), height - 1) * width
            light, heavy = _row(
                source, target, first + dy * source_w, row, x, live, mask, light, heavy, width,
                P, DEPTH, MIXED, PLAIN,
            )  # fmt: skip
            if dy + 1 == EXIT:
                live = live & (_weighed(light, heavy, table, DEPTH, MIXED) < enough)
    else:
        for dy in range(P):
            row = tl.minimum(tl.maximum(y + (dy - P // 2), 0), height - 1) * width
            light, heavy = _row(
                source, target, first + dy * source_w, row, x, live, mask, light, heavy, width,
                P, DEPTH, MIXED, PLAIN,
            )  # fmt: skip
            if dy + 1 == EXIT:
                live = live & (_weighed(light, heavy, table, DEPTH, MIXED) < enough)
    cost = _weighed(light, heavy, table, DEPTH, MIXED)
    return tl.where(live, cost, enough)
