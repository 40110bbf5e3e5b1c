"""Holes filled with what is around them.

Shape suffixes: H, W rows and columns; C channels. Pictures are uint8, holes bool.
"""

from __future__ import annotations

import cv2
import numpy as np

from fresco_core.propagation.compiled import kernel
from fresco_core.propagation.pictures import Mask, Picture

F = np.float32


def fill(picture_HWC: Picture, hole_HW: Mask, radius: int, scale: int = 1) -> Picture:
    """The picture with its hole filled; what is known stays.

    ``scale`` 0: by averages of the known pixels, the nearer the finer (`_pyramid`), at a cost that
    does not depend on the hole. Otherwise by Telea's inpainting (2004) from the pixels within
    ``radius``, whose cost grows with the hole and with the square of the radius. With ``scale`` > 1
    it works on a picture reduced by that factor, made of the known pixels only, and the hole gets
    the enlarged result: about scale⁴ times quicker, and smoother.
    """
    if not hole_HW.any():
        return picture_HWC
    if scale == 0:
        return _pyramid(picture_HWC, hole_HW)
    if scale == 1:
        return _telea(picture_HWC, hole_HW, radius)
    height, width = hole_HW.shape
    rows, columns = -(-height // scale), -(-width // scale)
    margin = ((0, rows * scale - height), (0, columns * scale - width), (0, 0))
    known = ~hole_HW[..., None]
    blocks = (rows, scale, columns, scale, -1)
    count = np.pad(known, margin).reshape(blocks).sum((1, 3))
    total = np.pad(picture_HWC * known, margin).reshape(blocks).sum((1, 3))
    small = np.rint(total / np.maximum(count, 1)).astype(np.uint8)
    small = _telea(small, count[..., 0] == 0, max(1, radius // scale))
    size = (columns * scale, rows * scale)
    large = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)[:height, :width]
    return np.where(known, picture_HWC, large)


def _telea(picture_HWC: Picture, hole_HW: Mask, radius: int) -> Picture:
    filled = cv2.inpaint(picture_HWC, hole_HW.astype(np.uint8) * 255, radius, cv2.INPAINT_TELEA)
    return np.asarray(filled, np.uint8)


def _pyramid(picture_HWC: Picture, hole_HW: Mask) -> Picture:
    """Averages of 2x2, 4x4, 8x8 … blocks, enlarged into one another.

    Pull and push (Gortler et al., "The Lumigraph", 1996): a block is the mean of those of its four
    parts in which any pixel is known, however many; one without any comes from the next coarser
    level, bilinear. Fractions are cut off, which guides do not notice: rounding changed the PSNR of
    four segments by -0.08 to +0.03 dB, -0.01 dB on average. Without any known pixel the result is
    black.
    """
    values = [np.ascontiguousarray(picture_HWC, np.float32)]
    weights = [np.asarray(~hole_HW, np.float32)]
    while max(weights[-1].shape) > 1 and not weights[-1].all():
        rows, columns = (-(-side // 2) for side in weights[-1].shape)
        values.append(np.zeros((rows, columns, picture_HWC.shape[2]), np.float32))
        weights.append(np.zeros((rows, columns), np.float32))
        _halve(values[-2], weights[-2], values[-1], weights[-1])
    for level in reversed(range(len(values) - 1)):
        _complete(values[level], weights[level], values[level + 1])
    return values[0].astype(np.uint8)


@kernel
def _halve(fine, fine_weight, coarse, coarse_weight):
    """Means of 2x2 blocks by weight, and whether they have any: 1, or 0."""
    height, width, channels = fine.shape
    for y in range(height):
        for x in range(width):
            share = fine_weight[y, x]
            if share > F(0):
                coarse_weight[y // 2, x // 2] += share
                for c in range(channels):
                    coarse[y // 2, x // 2, c] += share * fine[y, x, c]
    for y in range(coarse.shape[0]):
        for x in range(coarse.shape[1]):
            share = coarse_weight[y, x]
            if share > F(0):
                for c in range(channels):
                    coarse[y, x, c] /= share
                coarse_weight[y, x] = min(share, F(1))


@kernel
def _complete(fine, weight, coarse):
    """Give every pixel of weight 0 the coarser level's value."""
    height, width, channels = fine.shape
    rows, columns = coarse.shape[:2]
    for y in range(height):
        # A coarse pixel's centre lies between those of its fine ones.
        top = y // 2
        beside_y = min(max(top + (1 if y % 2 else -1), 0), rows - 1)
        for x in range(width):
            known = weight[y, x]
            if known >= F(1):
                continue
            left = x // 2
            beside_x = min(max(left + (1 if x % 2 else -1), 0), columns - 1)
            for c in range(channels):
                near = F(0.75) * coarse[top, left, c] + F(0.25) * coarse[top, beside_x, c]
                far = F(0.75) * coarse[beside_y, left, c] + F(0.25) * coarse[beside_y, beside_x, c]
                smooth = F(0.75) * near + F(0.25) * far
                fine[y, x, c] = known * fine[y, x, c] + (F(1) - known) * smooth
