"""Votes: what is painted where patches overlap."""

from __future__ import annotations

import numpy as np

from fresco_core.propagation.compiled import kernel

U = np.uint64

MOST_CHANNELS = 4


@kernel
def lanes(style):
    """Up to four uint8 channels of each pixel in one uint64, 16 bits apart: summed at one go."""
    height, width, channels = style.shape
    out = np.zeros(height * width, np.uint64)
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                out[U(y * width + x)] |= U(style[U(y), U(x), U(c)]) << U(16 * c)
    return out


@kernel
def vote(style_lanes, source_w, field, stale, image, patch_tuple):
    """Mean of the overlapping source patches, rounded half up, into ``image`` where ``stale``."""
    patch = len(patch_tuple)
    radius = patch // 2
    height, width, channels = image.shape
    for y in range(height):
        for x in range(width):
            if not stale[U(y), U(x)]:
                continue
            total = U(0)
            if radius <= y < height - radius and radius <= x < width - radius:
                count = patch**2
                for dy in range(patch):
                    j = U((y + dy - radius) * width + x - radius)
                    for dx in range(patch):
                        at = np.int64(field[j + U(dx)])
                        total += style_lanes[
                            U(((at >> 16) - dy + radius) * source_w + (at & 0xFFFF) - dx + radius)
                        ]
            else:
                count = 0
                for dy in range(max(-radius, -y), min(radius, height - 1 - y) + 1):
                    for dx in range(max(-radius, -x), min(radius, width - 1 - x) + 1):
                        at = np.int64(field[U((y + dy) * width + x + dx)])
                        total += style_lanes[U(((at >> 16) - dy) * source_w + (at & 0xFFFF) - dx)]
                        count += 1
            for c in range(channels):
                share = np.uint32((total >> U(16 * c)) & U(0xFFFF))
                image[U(y), U(x), U(c)] = np.uint32(
                    np.uint32(2 * share + np.uint32(count)) // np.uint32(2 * count)
                )


@kernel
def repack(image, stale, still, tables, packed, depth, margin, changed):
    """Write the pixels of a picture's first channels that have changed into a packed target.

    ``changed`` (H,W) is set where some channel differs by more than ``still`` levels from what is
    there; what differs by less is left as it is, so that small steps add up.
    """
    height, width, channels = image.shape
    row = (width + 2 * margin) * depth
    for y in range(height):
        for x in range(width):
            changed[U(y), U(x)] = 0
            if not stale[U(y), U(x)]:
                continue
            at = (y + margin) * row + (x + margin) * depth
            moved = False
            for c in range(channels):
                value = np.int64(image[U(y), U(x), U(c)])
                was = packed[U(at + c)]
                above = tables[U(c), U(min(value + still, 255))]
                below = tables[U(c), U(max(value - still, 0))]
                if was > above or was < below:
                    moved = True
            if not moved:
                continue
            changed[U(y), U(x)] = 1
            top = y + margin if y else 0
            bottom = y + margin if y < height - 1 else height + 2 * margin - 1
            left = x + margin if x else 0
            right = x + margin if x < width - 1 else width + 2 * margin - 1
            for to_y in range(top, bottom + 1):
                for to_x in range(left, right + 1):
                    for c in range(channels):
                        packed[U(to_y * row + to_x * depth + c)] = tables[
                            U(c), U(image[U(y), U(x), U(c)])
                        ]
