"""How pictures become the kernels' layout (see kernels.py).

Shape suffixes: H, W rows and columns; C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fresco_core.propagation.compiled import kernel
from fresco_core.propagation.level_sizes import Size
from fresco_core.propagation.pictures import Picture

U = np.uint64
Packed = NDArray[np.int16]


@dataclass(frozen=True)
class Packing:
    """Channels scaled, interleaved and padded."""

    tables: NDArray[np.int16]
    """(C,256): what a channel's values become."""
    depth: int
    patch: int
    unit: float
    """Integer cost of one unit of weighted squared difference."""

    @classmethod
    def of(cls, weights: NDArray[np.float64], patch: int) -> Packing:
        """The finest scale at which neither a patch's sums nor its cost overflow."""
        total = max(float(weights.sum()), 1e-12)
        heaviest = max(float(weights.max()), 1e-12)
        unit = min(
            0.98 * 2**31 / (total * (255.5 * patch) ** 2), (32000 / 255 / patch) ** 2 / heaviest
        )
        factors = np.sqrt(weights * unit)
        tables = np.rint(np.arange(256) * factors[:, None]).astype(np.int16)
        return cls(tables, -(-len(weights) // 8) * 8, patch, unit)

    @property
    def margin(self) -> int:
        return self.patch // 2

    @property
    def depth_tuple(self) -> tuple[int, ...]:
        return (0,) * self.depth

    @property
    def patch_tuple(self) -> tuple[int, ...]:
        return (0,) * self.patch

    def blank(self, size: Size) -> Packed:
        """A flat packed picture of nothing, framed by a margin."""
        height, width = size[0] + 2 * self.margin, size[1] + 2 * self.margin
        return np.zeros(height * width * self.depth, np.int16)

    def put(self, packed: Packed, picture_HWC: Picture, first: int) -> None:
        """Write a picture's channels from ``first`` on."""
        _put(np.ascontiguousarray(picture_HWC), self.tables, packed, self.depth, first, self.margin)

    def means(self, packed: Packed, size: Size, out: Packed | None = None) -> Packed:
        """Sums of every patch over ``patch``, flat (H,W,depth), at the patch's centre; written
        into ``out`` if it is given.
        """
        if out is None:
            out = np.empty(size[0] * size[1] * self.depth, np.int16)
        _means(packed, out, *size, self.depth_tuple, self.patch_tuple)
        return out


@kernel
def _put(picture, tables, packed, depth, first, margin):
    height, width, channels = picture.shape
    row = (width + 2 * margin) * depth
    for y in range(height):
        start = (y + margin) * row + margin * depth + first
        for x in range(width):
            for c in range(channels):
                packed[U(start + x * depth + c)] = tables[
                    U(first + c), U(picture[U(y), U(x), U(c)])
                ]
        last = start + (width - 1) * depth
        for x in range(1, margin + 1):
            for c in range(channels):
                packed[U(start - x * depth + c)] = packed[U(start + c)]
                packed[U(last + x * depth + c)] = packed[U(last + c)]
    for y in range(margin):
        for x in range(width + 2 * margin):
            for c in range(channels):
                at = x * depth + first + c
                packed[U(y * row + at)] = packed[U(margin * row + at)]
                packed[U((height + margin + y) * row + at)] = packed[
                    U((height + margin - 1) * row + at)
                ]


@kernel
def _means(packed, out, height, width, depth_tuple, patch_tuple):
    depth = len(depth_tuple)
    patch = len(patch_tuple)
    framed = (width + patch - 1) * depth
    sums = np.zeros(framed, np.int32)
    share = np.float32(1.0 / patch)
    for y in range(patch - 1):
        for k in range(framed):
            sums[U(k)] += np.int32(packed[U(y * framed + k)])
    for y in range(height):
        for k in range(framed):
            sums[U(k)] += np.int32(packed[U((y + patch - 1) * framed + k)])
        for k in range(width * depth):
            total = np.int32(0)
            for dx in range(patch):
                total += sums[U(k + dx * depth)]
            out[U(y * width * depth + k)] = np.int16(np.float32(total) * share)
        for k in range(framed):
            sums[U(k)] -= np.int32(packed[U(y * framed + k)])
