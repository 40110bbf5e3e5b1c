# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# Triton's functions are compiled from their text; their arguments are pointers and numbers.
"""The steps of synthesis as Triton kernels. Each does what its namesake in `twin` does, to the bit.

A program takes a tile of target pixels, a thread one of them; a load is a pixel's words.

Shapes: B chains painted, K known; N target and M source pixels; D words of a pixel (see `scene`).
"""

import os

import torch
import triton
import triton.language as tl

from fresco_core.launching import OPTIONS
from fresco_core.propagation.gpu import chance, twin, words
from fresco_core.propagation.gpu.distance import patch_cost
from fresco_core.propagation.gpu.scene import ENTRY, Scene, Turn
from fresco_core.propagation.level_sizes import Size

PLAIN = os.environ.get("TRITON_INTERPRET") == "1"
"""Triton's interpreter knows no instructions of the device, and takes its time for each program."""
TILE_H, TILE_W, WARPS = (16, 16, 1) if PLAIN else (4, 8, 1)
WIDE_H, WIDE_W = (16, 16) if PLAIN else (4, 32)
FLAT = 1024 if PLAIN else 256

_ENTRY = tl.constexpr(ENTRY)
_SHIFT = tl.constexpr(words.SHIFT)
_LARGEST = tl.constexpr(words.LARGEST_COST)
_STRIDE, _FIRST, _SECOND = (
    tl.constexpr(number) for number in (chance.STRIDE, chance.FIRST, chance.SECOND)
)


@triton.jit
def _extra(coverage, entry, penalty, source_w, valid):
    """What the use of the entries' source patches costs."""
    at = (entry >> 16) * source_w + (entry & 0xFFFF)
    use = tl.load(coverage + at, valid, 0).to(tl.int64)
    return tl.minimum(use * penalty >> _SHIFT, _LARGEST).to(tl.int32)


@triton.jit
def _pixels(height, width, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    """Rows and columns of a program's pixels, and which of them there are."""
    tile = tl.program_id(0)
    across = tl.cdiv(width, TILE_W)
    i = tl.arange(0, TILE_H * TILE_W)
    y = tile // across * TILE_H + i // TILE_W
    x = tile % across * TILE_W + i % TILE_W
    return y, x, (y < height) & (x < width)


@triton.jit
def _random(key, counter):
    bits = counter.to(tl.uint32) * _STRIDE + key.to(tl.uint32)
    bits = (bits ^ (bits >> 16)) * _FIRST
    bits = (bits ^ (bits >> 15)) * _SECOND
    return bits ^ (bits >> 16)


@triton.jit
def _around(centre, span, low, high, bits):
    """A random number within a span of another, by 16 random bits."""
    first = tl.maximum(centre - span, low)
    wide = tl.minimum(centre + span, high) - first + 1
    return first + ((bits * wide.to(tl.uint32)) >> 16).to(tl.int32)


@triton.jit(
    do_not_specialize=[
        "height", "width", "source_h", "source_w", "penalty", "key", "first", "spans", "widest",
        "again",
    ]
)  # fmt: skip
def _sweep(
    source, target, field, out, cost, count, coverage, active, limit, total, chain, table,
    height, width, source_h, source_w, penalty, key,
    first, spans, widest, again,
    P: tl.constexpr, DEPTH: tl.constexpr, MIXED: tl.constexpr, EXIT: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr, PLAIN: tl.constexpr,
):  # fmt: skip
    """Candidates by number: -1, the pixel's own entry, whose cost is out of date; then those of
    four neighbours; then ``spans`` random ones.
    """
    slot = tl.program_id(1).to(tl.int64)
    start = slot * height * width
    covered = source_h * source_w
    y, x, inside = _pixels(height, width, TILE_H, TILE_W)
    at = y * width + x
    entry = tl.load(field + start + at, inside, 0)
    old = entry & _ENTRY
    old_cost = tl.load(cost + start + at, inside, 0)
    seeking = inside & (tl.load(active + start + at, inside, 0) != 0)
    most = tl.load(limit + slot)
    if again != 0:
        moved = entry < 0
        for way in tl.static_range(4):
            by_y, by_x = (way == 1) - (way == 0), (way == 3) - (way == 2)
            near = inside & (y + by_y >= 0) & (y + by_y < height)
            near = near & (x + by_x >= 0) & (x + by_x < width)
            moved = moved | (tl.load(field + start + at + by_y * width + by_x, near, 0) < 0)
        seeking = seeking & (moved | (old_cost > most))
    if tl.max(seeking.to(tl.int32), 0) == 0:
        tl.store(out + start + at, old, inside)
    else:
        source += tl.load(chain + slot).to(tl.int64) * covered * DEPTH
        target += start * DEPTH
        coverage += slot * covered
        count += slot * covered
        found = old
        found_cost = old_cost
        best = old_cost + _extra(coverage, old, penalty, source_w, inside)
        last_y = source_h - 1 - P // 2
        last_x = source_w - 1 - P // 2
        for number in range(first, 4 + spans):
            if number < 0:
                new = old
                valid = seeking
            elif number < 4:
                dy = tl.where(number == 0, -1, tl.where(number == 1, 1, 0))
                dx = tl.where(number == 2, -1, tl.where(number == 3, 1, 0))
                valid = seeking & (y + dy >= 0) & (y + dy < height)
                valid = valid & (x + dx >= 0) & (x + dx < width)
                near = tl.load(field + start + at + dy * width + dx, valid, 0) & _ENTRY
                new_y = (near >> 16) - dy
                new_x = (near & 0xFFFF) - dx
                valid = valid & (new_y >= P // 2) & (new_y <= last_y)
                valid = valid & (new_x >= P // 2) & (new_x <= last_x)
                new = (new_y << 16) | new_x
                valid = valid & (new != found)
            else:
                span = widest >> (number - 4)
                bits = _random(key, at * 32 + (number - 4))
                new_y = _around(found >> 16, span, P // 2, last_y, bits >> 16)
                new_x = _around(found & 0xFFFF, span, P // 2, last_x, bits & 0xFFFF)
                new = (new_y << 16) | new_x
                valid = seeking & (found_cost > tl.where(span == 1, -1, most)) & (new != found)
            if tl.max(valid.to(tl.int32), 0) != 0:
                extra = _extra(coverage, new, penalty, source_w, valid)
                enough = tl.where(number < 0, 0x7FFFFFFF, best - extra)
                valid = valid & (enough > 0)
                new_cost = patch_cost(
                    source, target, table, new, y, x, valid, enough, height, width, source_w,
                    P, DEPTH, MIXED, EXIT, PLAIN,
                )  # fmt: skip
                better = valid & (new_cost < enough)
                best = tl.where(better, new_cost + extra, best)
                found = tl.where(better, new, found)
                found_cost = tl.where(better, new_cost, found_cost)
        moved = seeking & (found != old)
        tl.store(out + start + at, found | (moved.to(tl.int32) << 31), inside)
        tl.store(cost + start + at, found_cost, seeking)
        one = tl.full(old.shape, 1, tl.int32)
        tl.atomic_add(count + (old >> 16) * source_w + (old & 0xFFFF), -one, moved, sem="relaxed")
        tl.atomic_add(
            count + (found >> 16) * source_w + (found & 0xFFFF), one, moved, sem="relaxed"
        )
        change = tl.sum(tl.where(seeking, found_cost - old_cost, 0).to(tl.int64), 0)
        tl.atomic_add(total + slot, change, sem="relaxed")


@triton.jit(do_not_specialize=["height", "width", "source_h", "source_w"])
def _measure(
    source, target, field, cost, chain, table, height, width, source_h, source_w,
    P: tl.constexpr, DEPTH: tl.constexpr, MIXED: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr, PLAIN: tl.constexpr,
):  # fmt: skip
    slot = tl.program_id(1).to(tl.int64)
    start = slot * height * width
    source += tl.load(chain + slot).to(tl.int64) * source_h * source_w * DEPTH
    y, x, inside = _pixels(height, width, TILE_H, TILE_W)
    entry = tl.load(field + start + y * width + x, inside, 0) & _ENTRY
    found = patch_cost(
        source, target + start * DEPTH, table, entry, y, x, inside, tl.zeros_like(entry),
        height, width, source_w, P, DEPTH, MIXED, 0, PLAIN,
    )  # fmt: skip
    tl.store(cost + start + y * width + x, found, inside)


@triton.jit(do_not_specialize=["height", "width", "source_h", "source_w"])
def _vote(
    style, field, image, chain, height, width, source_h, source_w,
    P: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
):  # fmt: skip
    slot = tl.program_id(1).to(tl.int64)
    start = slot * height * width
    style += tl.load(chain + slot).to(tl.int64) * source_h * source_w
    y, x, inside = _pixels(height, width, TILE_H, TILE_W)
    # Two channels in the halves of a word, whose sums fit.
    even = tl.zeros((TILE_H * TILE_W,), tl.int32)
    odd = tl.zeros((TILE_H * TILE_W,), tl.int32)
    share = tl.zeros((TILE_H * TILE_W,), tl.int32)
    for dy in range(-(P // 2), P // 2 + 1):
        for dx in tl.static_range(-(P // 2), P // 2 + 1):
            there = inside & (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
            entry = tl.load(field + start + (y + dy) * width + x + dx, there, 0) & _ENTRY
            at = ((entry >> 16) - dy) * source_w + (entry & 0xFFFF) - dx
            word = tl.load(style + at, there, 0)
            even += word & 0x00FF00FF
            odd += (word >> 8) & 0x00FF00FF
            share += there.to(tl.int32)
    share = tl.maximum(share, 1)
    result = (2 * (even & 0xFFFF) + share) // (2 * share)
    result |= ((2 * (odd & 0xFFFF) + share) // (2 * share)) << 8
    result |= ((2 * ((even >> 16) & 0xFFFF) + share) // (2 * share)) << 16
    result |= ((2 * ((odd >> 16) & 0xFFFF) + share) // (2 * share)) << 24
    tl.store(image + start + y * width + x, result, inside)


@triton.jit(do_not_specialize=["size", "still", "style_mask"])
def _show(target, image, changed, size, still, style_mask, DEPTH: tl.constexpr, FLAT: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * FLAT + tl.arange(0, FLAT)
    inside = at < size
    old = tl.load(target + at * DEPTH, inside, 0)
    new = tl.load(image + at, inside, 0)
    differs = tl.zeros((FLAT,), tl.int32)
    for byte in tl.static_range(4):
        difference = tl.abs(((old >> 8 * byte) & 0xFF) - ((new >> 8 * byte) & 0xFF))
        used = (style_mask >> 8 * byte) & 0xFF
        differs |= ((difference > still) & (used != 0)).to(tl.int32)
    tl.store(changed + at, differs.to(tl.uint8), inside)
    shown = (old & (style_mask ^ -1)) | (new & style_mask)
    tl.store(target + at * DEPTH, shown, inside & (differs != 0))


@triton.jit(do_not_specialize=["height", "width"])
def _spread(
    changed, active, height, width,
    P: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
):  # fmt: skip
    start = tl.program_id(1).to(tl.int64) * height * width
    y, x, inside = _pixels(height, width, TILE_H, TILE_W)
    found = tl.zeros((TILE_H * TILE_W,), tl.int32)
    for dy in range(-(P // 2), P // 2 + 1):
        for dx in tl.static_range(-(P // 2), P // 2 + 1):
            there = inside & (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
            found |= tl.load(changed + start + (y + dy) * width + x + dx, there, 0).to(tl.int32)
    tl.store(active + start + y * width + x, found.to(tl.uint8), inside)


@triton.jit(do_not_specialize=["height", "width", "pixels", "far"])
def _cover(
    count, coverage, total, limit, height, width, pixels, far,
    P: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
):  # fmt: skip
    slot = tl.program_id(1).to(tl.int64)
    start = slot * height * width
    y, x, inside = _pixels(height, width, TILE_H, TILE_W)
    sums = tl.zeros((TILE_H * TILE_W,), tl.int32)
    for dy in range(1 - P, P):
        row = inside & (y + dy >= 0) & (y + dy < height)
        strip = tl.zeros((TILE_H * TILE_W,), tl.int32)
        for dx in tl.static_range(1 - P, P):
            there = row & (x + dx >= 0) & (x + dx < width)
            used = tl.load(count + start + (y + dy) * width + x + dx, there, 0)
            strip += (P - tl.abs(dx)) * used
        sums += (P - tl.abs(dy)) * strip
    tl.store(coverage + start + y * width + x, sums, inside)
    if tl.program_id(0) == 0:
        mean = tl.load(total + slot) * far // (tl.full((), 256, tl.int64) * pixels)
        tl.store(limit + slot, tl.where(far == 0, -1, mean))


def vote(scene: Scene) -> None:
    """Write the image: means of overlapping source patches, rounded half up."""
    _vote[_tiles(scene, WIDE_H, WIDE_W)](
        scene.style_KM, scene.field_BN, scene.image_BN, scene.chain_B,
        *scene.size, *scene.source_size, scene.patch, WIDE_H, WIDE_W, **OPTIONS,
    )  # fmt: skip


def show(scene: Scene, still: int) -> None:
    """Put the image's pixels that differ by more than ``still`` levels into the target, and mark
    what they change and the centres of the patches that they are part of.
    """
    size = scene.image_BN.numel()
    _show[(triton.cdiv(size, FLAT),)](
        scene.target_BND, scene.image_BN, scene.changed_BN, size, still, scene.style_mask,
        scene.words.depth, FLAT, **OPTIONS,
    )  # fmt: skip
    _spread[_tiles(scene, WIDE_H, WIDE_W)](
        scene.changed_BN, scene.active_BN, *scene.size, scene.patch, WIDE_H, WIDE_W, **OPTIONS
    )


def count(scene: Scene) -> None:
    """Count the field's entries by source pixel."""
    twin.count(scene)


def cover(scene: Scene, far: int) -> None:
    """Sum the counts over what overlaps each source patch; renew the limits, which are ``far``
    256ths of the mean costs, or -1 where that is 0.
    """
    _cover[_tiles(scene, WIDE_H, WIDE_W, scene.source_size)](
        scene.count_BM, scene.coverage_BM, scene.total_B, scene.limit_B, *scene.source_size,
        scene.field_BN.shape[1], far, scene.patch, WIDE_H, WIDE_W, **OPTIONS,
    )  # fmt: skip


def measure(scene: Scene) -> None:
    """Write the cost of the field, and its sums."""
    _measure[_tiles(scene, TILE_H, TILE_W)](
        scene.source_KMD, scene.target_BND, scene.field_BN, scene.cost_BN, scene.chain_B,
        scene.table_3D, *scene.size, *scene.source_size,
        scene.patch, scene.words.depth, scene.words.mixed, TILE_H, TILE_W, PLAIN,
        num_warps=WARPS, **OPTIONS,
    )  # fmt: skip
    torch.sum(scene.cost_BN, 1, out=scene.total_B)


def sweep(scene: Scene, key: int, turn: Turn) -> None:
    """One search over the active pixels; entries, costs, counts and sums are renewed."""
    widest = max(scene.source_size) // 2
    _sweep[_tiles(scene, TILE_H, TILE_W)](
        scene.source_KMD, scene.target_BND, scene.field_BN, scene.next_BN, scene.cost_BN,
        scene.count_BM, scene.coverage_BM, scene.active_BN, scene.limit_B, scene.total_B,
        scene.chain_B, scene.table_3D, *scene.size, *scene.source_size, scene.penalty,
        words.signed(key), -1 if turn.fresh else 0, widest.bit_length(), widest, int(turn.again),
        scene.patch, scene.words.depth, scene.words.mixed, EXIT, TILE_H, TILE_W, PLAIN,
        num_warps=WARPS, **OPTIONS,
    )  # fmt: skip
    scene.field_BN, scene.next_BN = scene.next_BN, scene.field_BN


EXIT = 2
"""Rows after which a patch is given up that costs too much already."""


def _tiles(scene: Scene, height: int, width: int, size: Size | None = None) -> tuple[int, int]:
    size = size or scene.size
    rows, columns = triton.cdiv(size[0], height), triton.cdiv(size[1], width)
    return rows * columns, len(scene.chain_B)
