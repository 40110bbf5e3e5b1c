"""Patch-matching kernels.

Layout shared by all: a picture is a flat int16 array, its channels interleaved and padded to a
multiple of eight (``depth``), every channel scaled by the root of its weight, so that the cost of
two patches is a plain sum of squared differences. Both pictures are padded by ``patch // 2``
repeated pixels on each side. Only the target's are ever read: the source's patch centres keep that
distance to the border.

``means`` of a picture hold, at every patch's centre, its channels' sums over ``patch``: the squared
difference of those of two patches is at most the patches' cost (Cauchy and Schwarz), and turns most
random candidates away after one pixel's worth of work.

A field holds the source patch centre of every target pixel: ``y << 16 | x`` in int32.

Where ``depth`` and ``patch`` must be known when compiling, so that the loops over a patch become
straight vector code, they come as tuples whose lengths they are: a tuple's length is part of its
type. Indices are unsigned because signed ones keep Python's wrap-around checks.
"""

from __future__ import annotations

import numpy as np

from fresco_core.propagation.compiled import kernel
from fresco_core.propagation.vectors import prefetch, squares

U = np.uint64

NEAR = 1
"""Radius in which a pixel is sought again that fits well."""


@kernel
def _next_random(state):
    """One step of Marsaglia's xorshift64; never 0 if the state is not."""
    state ^= state << U(13)
    state ^= state >> U(7)
    state ^= state << U(17)
    return state


@kernel
def _cover(coverage, x, y, width, patch_tuple, sign):
    """Add one patch at a source centre to the coverage sums of all patches that overlap it.

    ``coverage`` is padded by ``patch - 1`` on each side. Two patches dx and dy apart share
    (patch - |dx|) * (patch - |dy|) pixels.
    """
    patch = len(patch_tuple)
    reach = patch - 1
    padded = width + 2 * reach
    for dy in range(2 * reach + 1):
        rows = sign * (patch - abs(dy - reach))
        start = U((y + dy) * padded + x)
        for dx in range(2 * reach + 1):
            coverage[start + U(dx)] += np.int32(rows * (patch - abs(dx - reach)))


@kernel
def cover_all(field, coverage, width, patch_tuple):
    """Write every source patch's coverage sum: how often its pixels are used by the field."""
    coverage[:] = 0
    for i in range(field.size):
        _cover(coverage, field[i] & 0xFFFF, field[i] >> 16, width, patch_tuple, 1)


@kernel
def measure(
    source,
    target,
    target_means,
    field,
    cost,
    active,
    source_w,
    target_w,
    channels,
    depth_tuple,
    patch_tuple,
):
    """Write the patch cost of the field into ``cost`` for every active target pixel.

    The means of its first channels as well: those that votes change.
    """
    depth = len(depth_tuple)
    patch = len(patch_tuple)
    radius = patch // 2
    share = np.float32(1.0 / patch)
    source_row = U((source_w + 2 * radius) * depth)
    target_row = U((target_w + 2 * radius) * depth)
    for i in range(field.size):
        if active[U(i)]:
            y = i // target_w
            x = i - y * target_w
            at = np.int64(field[U(i)])
            a = U((at >> 16) * (source_w + 2 * radius) + (at & 0xFFFF)) * U(depth)
            b = U(y * (target_w + 2 * radius) + x) * U(depth)
            cost[U(i)] = squares(
                source, a, source_row, target, b, target_row, depth_tuple, patch_tuple, patch_tuple
            )
            for c in range(channels):
                total = np.int32(0)
                for dy in range(patch):
                    for dx in range(patch):
                        total += target[b + U(dy) * target_row + U(dx * depth + c)]
                target_means[U(i * depth + c)] = np.int16(np.float32(total) * share)


@kernel
def sweep(
    source,
    source_means,
    target,
    target_means,
    field,
    cost,
    coverage,
    active,
    source_w,
    source_h,
    target_w,
    target_h,
    penalty,
    state,
    turn,
    again,
    moved,
    around,
    far,
    depth_tuple,
    patch_tuple,
):
    """One scan over the target: propagation from neighbours, then random search.

    ``around``: from all four neighbours, not only from the two that the scan has passed. ``far``:
    cost above which a patch is sought in the whole source, not only near where it is. ``penalty``:
    the cost of one unit of coverage. Changes field, cost and coverage in place; returns the state
    of the random numbers.
    """
    depth = len(depth_tuple)
    patch = len(patch_tuple)
    radius = patch // 2
    reach = patch - 1
    one = depth_tuple[:1]
    source_row = U((source_w + 2 * radius) * depth)
    target_row = U((target_w + 2 * radius) * depth)
    covered = source_w + 2 * reach
    x_last = source_w - 1 - radius
    y_last = source_h - 1 - radius
    forward = turn % 2 == 0
    step = 1 if forward else -1
    widest = max(source_w, source_h) // 2
    candidates = np.empty(32, np.int64)
    for line in range(target_h):
        y = line if forward else target_h - 1 - line
        for column in range(target_w):
            x = column if forward else target_w - 1 - column
            i = U(y * target_w + x)
            if not active[i]:
                continue
            if again and np.float32(cost[i]) <= far:
                # Nothing new to ask the neighbours, and little to find.
                latest = moved[i]
                latest = max(latest, moved[i - U(1) if x else i])
                latest = max(latest, moved[i + U(1) if x + 1 < target_w else i])
                latest = max(latest, moved[i - U(target_w) if y else i])
                latest = max(latest, moved[i + U(target_w) if y + 1 < target_h else i])
                if latest < turn - 1:
                    continue
            start = np.int64(field[i])
            found = start
            b = U(y * (target_w + 2 * radius) + x) * U(depth)
            best_cost = cost[i]
            use = coverage[U(((start >> 16) + reach) * covered + (start & 0xFFFF) + reach)]
            best = np.float32(best_cost) + penalty * np.float32(use)
            for random in (False, True):
                count = 0
                if random:
                    best_x = found & 0xFFFF
                    best_y = found >> 16
                    span = widest if np.float32(best_cost) > far else min(widest, NEAR)
                    while span >= 1:
                        state = _next_random(state)
                        low = max(radius, best_x - span)
                        wide = min(x_last, best_x + span) - low + 1
                        new_x = low + np.int64(((state & U(0xFFFFFFFF)) * U(wide)) >> U(32))
                        low = max(radius, best_y - span)
                        wide = min(y_last, best_y + span) - low + 1
                        new_y = low + np.int64(((state >> U(32)) * U(wide)) >> U(32))
                        prefetch(source_means, U(new_y * source_w + new_x) * U(depth))
                        candidates[U(count)] = (new_y << 16) | new_x
                        count += 1
                        span >>= 1
                else:
                    if 0 <= y - step < target_h:
                        near = np.int64(field[U((y - step) * target_w + x)]) + (step << 16)
                        if radius <= near >> 16 <= y_last and near != start:
                            candidates[U(count)] = near
                            count += 1
                    if around:
                        if 0 <= y + step < target_h:
                            near = np.int64(field[U((y + step) * target_w + x)]) - (step << 16)
                            if radius <= near >> 16 <= y_last and near != start:
                                candidates[U(count)] = near
                                count += 1
                        if 0 <= x + step < target_w:
                            near = np.int64(field[U(y * target_w + x + step)]) - step
                            if radius <= near & 0xFFFF <= x_last and near != start:
                                candidates[U(count)] = near
                                count += 1
                    if 0 <= x - step < target_w:
                        near = np.int64(field[U(y * target_w + x - step)]) + step
                        if radius <= near & 0xFFFF <= x_last and near != start:
                            candidates[U(count)] = near
                            count += 1
                for number in range(count):
                    new = candidates[U(number)]
                    new_x = new & 0xFFFF
                    new_y = new >> 16
                    a = U(new_y * source_w + new_x) * U(depth)
                    floor = squares(
                        source_means,
                        a,
                        U(0),
                        target_means,
                        i * U(depth),
                        U(0),
                        depth_tuple,
                        one,
                        one,
                    )
                    if np.float32(floor) >= best:
                        continue
                    use = coverage[U((new_y + reach) * covered + new_x + reach)]
                    extra = penalty * np.float32(use)
                    if np.float32(floor) + extra >= best:
                        continue
                    new_cost = squares(
                        source,
                        U(new_y * (source_w + 2 * radius) + new_x) * U(depth),
                        source_row,
                        target,
                        b,
                        target_row,
                        depth_tuple,
                        patch_tuple,
                        patch_tuple,
                    )
                    if np.float32(new_cost) + extra < best and new != found:
                        best = np.float32(new_cost) + extra
                        best_cost = new_cost
                        found = new
            if found != start:
                _cover(coverage, start & 0xFFFF, start >> 16, source_w, patch_tuple, -1)
                _cover(coverage, found & 0xFFFF, found >> 16, source_w, patch_tuple, 1)
                moved[i] = turn
                field[i] = found
                cost[i] = best_cost
    return state


@kernel
def scatter(count, source_w, source_h, patch, state):
    """A random field of ``count`` source patch centres, and the state of the random numbers."""
    radius = patch // 2
    field = np.empty(count, np.int32)
    for i in range(count):
        state = _next_random(state)
        x = radius + np.int64(((state & U(0xFFFFFFFF)) * U(source_w - 2 * radius)) >> U(32))
        y = radius + np.int64(((state >> U(32)) * U(source_h - 2 * radius)) >> U(32))
        field[i] = (y << 16) | x
    return field, state


@kernel
def enlarge(coarse, coarse_w, coarse_h, width, height, source_w, source_h, patch):
    """The field at twice the size: neighbours stay neighbours, kept clear of the border."""
    field = np.empty(width * height, np.int32)
    x_low, x_high, y_low, y_high = patch, source_w - patch - 1, patch, source_h - patch - 1
    if x_low > x_high:
        x_low, x_high = patch // 2, source_w - 1 - patch // 2
    if y_low > y_high:
        y_low, y_high = patch // 2, source_h - 1 - patch // 2
    for y in range(height):
        for x in range(width):
            at = np.int64(
                coarse[U(min(y // 2, coarse_h - 1) * coarse_w + min(x // 2, coarse_w - 1))]
            )
            new_x = min(max(2 * (at & 0xFFFF) + x % 2, x_low), x_high)
            new_y = min(max(2 * (at >> 16) + y % 2, y_low), y_high)
            field[U(y * width + x)] = (new_y << 16) | new_x
    return field
