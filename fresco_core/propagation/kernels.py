"""Patch-matching kernels: machine code for the user's own CPU, made by Numba on first use.

Layout shared by all kernels: a picture is a flat int16 array, its channels interleaved and padded
to a multiple of eight (``depth``), every channel scaled by the root of its weight, so that the
cost of two patches is a plain sum of squared differences. The target is padded by ``patch // 2``
repeated pixels on each side; the source is not, its patch centres keep that distance to the
border. A field holds the source patch centre of every target pixel.

Where ``depth`` and ``patch`` must be known when compiling, so that the loops over a patch become
straight vector code, they come as tuples whose lengths they are: a tuple's length is part of its
type. Indices are unsigned because signed ones keep Python's wrap-around checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

U = np.uint64


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the GIL; keep the machine code on disk where some place can be written.

    Numba looks beside the module, then in the user's cache folder, and raises if it can write
    to neither (a read-only installation run by a service without a home).
    """
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)


@kernel
def _next_random(state):
    """One step of Marsaglia's xorshift32; never 0 if the state is not."""
    state ^= np.uint32(state << np.uint32(13))
    state ^= np.uint32(state >> np.uint32(17))
    state ^= np.uint32(state << np.uint32(5))
    return np.uint32(state)


@kernel
def _random_between(state, low, high):
    """A whole number from low..high, both included."""
    span = U(high - low + 1)
    return low + np.int64((U(state) * span) >> U(32))


@kernel
def _distance(source, target, a, b, source_row, target_row, bound, depth_tuple, patch_tuple):
    """Sum of squared differences of two patches given by their first elements.

    Stops after the first row where that alone reaches ``bound``.
    """
    depth = len(depth_tuple)
    patch = len(patch_tuple)
    total = np.int32(0)
    for k in range(depth * patch):
        difference = np.int16(source[a + U(k)] - target[b + U(k)])
        total = np.int32(total + np.int32(np.int32(difference) * np.int32(difference)))
    if total >= bound:
        return total
    a += source_row
    b += target_row
    for k in range(depth * patch):
        for r in range(patch - 1):
            difference = np.int16(
                source[a + U(k) + U(r) * source_row] - target[b + U(k) + U(r) * target_row]
            )
            total = np.int32(total + np.int32(np.int32(difference) * np.int32(difference)))
    return total


@kernel
def _cover(coverage, x, y, width, patch, sign):
    """Add one patch at a source centre to the coverage sums of all patches that overlap it.

    ``coverage`` is padded by ``patch - 1`` on each side. Two patches dx and dy apart share
    (patch - |dx|) * (patch - |dy|) pixels.
    """
    reach = patch - 1
    padded = width + 2 * reach
    for dy in range(-reach, reach + 1):
        rows = sign * (patch - abs(dy))
        start = U((y + reach + dy) * padded + x)
        for dx in range(2 * reach + 1):
            coverage[start + U(dx)] += np.int32(rows * (patch - abs(dx - reach)))


@kernel
def cover_all(field_x, field_y, width, height, patch):
    """Coverage sums of every source patch: how often its pixels are used by the field."""
    reach = patch - 1
    coverage = np.zeros((height + 2 * reach) * (width + 2 * reach), np.int32)
    for i in range(field_x.size):
        _cover(coverage, field_x[i], field_y[i], width, patch, 1)
    return coverage


@kernel
def measure(
    source, target, field_x, field_y, cost, active, source_w, target_w, depth_tuple, patch_tuple
):
    """Write the patch cost of the field into ``cost`` for every active target pixel."""
    depth = len(depth_tuple)
    patch = len(patch_tuple)
    radius = patch // 2
    source_row = U(source_w * depth)
    target_row = U((target_w + 2 * radius) * depth)
    bound = np.int32(2**31 - 1)
    for i in range(field_x.size):
        if active[i]:
            y = i // target_w
            x = i - y * target_w
            a = U((field_y[i] - radius) * source_w + field_x[i] - radius) * U(depth)
            b = U(y * (target_w + 2 * radius) + x) * U(depth)
            cost[i] = _distance(
                source, target, a, b, source_row, target_row, bound, depth_tuple, patch_tuple
            )


@kernel
def sweep(
    source,
    target,
    field_x,
    field_y,
    cost,
    coverage,
    active,
    source_w,
    source_h,
    target_w,
    target_h,
    penalty,
    state,
    forward,
    depth_tuple,
    patch_tuple,
):
    """One scan over the target: propagation from two neighbours, then random search.

    ``penalty`` is the cost of one unit of coverage. Changes field, cost and coverage in place;
    returns the state of the random numbers.
    """
    depth = len(depth_tuple)
    patch = len(patch_tuple)
    radius = patch // 2
    reach = patch - 1
    source_row = U(source_w * depth)
    target_row = U((target_w + 2 * radius) * depth)
    covered = source_w + 2 * reach
    x_last = source_w - 1 - radius
    y_last = source_h - 1 - radius
    step = 1 if forward else -1
    widest = max(source_w, source_h) // 2
    for line in range(target_h):
        y = line if forward else target_h - 1 - line
        for column in range(target_w):
            x = column if forward else target_w - 1 - column
            i = U(y * target_w + x)
            if not active[i]:
                continue
            b = U(y * (target_w + 2 * radius) + x) * U(depth)
            best_x = np.int64(field_x[i])
            best_y = np.int64(field_y[i])
            start_x = best_x
            start_y = best_y
            best_cost = cost[i]
            use = coverage[U((best_y + reach) * covered + best_x + reach)]
            best = np.float32(best_cost) + penalty * np.float32(use)
            attempt = 0
            span = widest
            while True:
                if attempt == 0:
                    attempt = 1
                    if x - step < 0 or x - step >= target_w:
                        continue
                    j = U(y * target_w + x - step)
                    new_x = field_x[j] + step
                    new_y = np.int64(field_y[j])
                    if new_x < radius or new_x > x_last:
                        continue
                elif attempt == 1:
                    attempt = 2
                    if y - step < 0 or y - step >= target_h:
                        continue
                    j = U((y - step) * target_w + x)
                    new_x = np.int64(field_x[j])
                    new_y = field_y[j] + step
                    if new_y < radius or new_y > y_last:
                        continue
                else:
                    if span < 1:
                        break
                    state = _next_random(state)
                    new_x = _random_between(
                        state, max(radius, best_x - span), min(x_last, best_x + span)
                    )
                    state = _next_random(state)
                    new_y = _random_between(
                        state, max(radius, best_y - span), min(y_last, best_y + span)
                    )
                    span //= 2
                if new_x == best_x and new_y == best_y:
                    continue
                use = coverage[U((new_y + reach) * covered + new_x + reach)]
                extra = penalty * np.float32(use)
                if extra >= best:
                    continue
                bound = np.int32(min(best - extra, np.float32(2147483000.0)))
                a = U((new_y - radius) * source_w + new_x - radius) * U(depth)
                new_cost = _distance(
                    source, target, a, b, source_row, target_row, bound, depth_tuple, patch_tuple
                )
                if np.float32(new_cost) + extra < best:
                    best = np.float32(new_cost) + extra
                    best_cost = new_cost
                    best_x = new_x
                    best_y = new_y
            if best_x != start_x or best_y != start_y:
                _cover(coverage, start_x, start_y, source_w, patch, -1)
                _cover(coverage, best_x, best_y, source_w, patch, 1)
                field_x[i] = best_x
                field_y[i] = best_y
                cost[i] = best_cost
    return state


@kernel
def vote(style, channels, field_x, field_y, source_w, target_w, target_h, patch):
    """Mean of the overlapping source patches; flat uint8, rounded half up."""
    radius = patch // 2
    out = np.empty(target_w * target_h * channels, np.uint8)
    total = np.zeros(channels, np.int64)
    for y in range(target_h):
        for x in range(target_w):
            total[:] = 0
            count = 0
            for dy in range(max(-radius, -y), min(radius, target_h - 1 - y) + 1):
                for dx in range(max(-radius, -x), min(radius, target_w - 1 - x) + 1):
                    j = U((y + dy) * target_w + x + dx)
                    a = U((field_y[j] - dy) * source_w + field_x[j] - dx) * U(channels)
                    for c in range(channels):
                        total[U(c)] += style[a + U(c)]
                    count += 1
            o = U(y * target_w + x) * U(channels)
            for c in range(channels):
                out[o + U(c)] = (2 * total[U(c)] + count) // (2 * count)
    return out


@kernel
def scatter(count, source_w, source_h, patch, state):
    """A random field of ``count`` source patch centres, and the state of the random numbers."""
    radius = patch // 2
    x = np.empty(count, np.int32)
    y = np.empty(count, np.int32)
    for i in range(count):
        state = _next_random(state)
        x[i] = _random_between(state, radius, source_w - 1 - radius)
        state = _next_random(state)
        y[i] = _random_between(state, radius, source_h - 1 - radius)
    return x, y, state
