"""Pictures at smaller sizes.

Shape suffixes: H, W rows and columns; C channels.
"""

from __future__ import annotations

import numpy as np

from fresco_core.propagation.compiled import kernel
from fresco_core.propagation.level_sizes import level_size
from fresco_core.propagation.pictures import Picture


def reduce(picture_HWC: Picture, level: int) -> Picture:
    """Bilinear point samples of the full picture at multiples of the width ratio."""
    if level == 0:
        return np.ascontiguousarray(picture_HWC)
    rows, columns = level_size((picture_HWC.shape[0], picture_HWC.shape[1]), level)
    ratio = picture_HWC.shape[1] / columns
    out = np.empty((rows, columns, picture_HWC.shape[2]), np.uint8)
    _sample(np.ascontiguousarray(picture_HWC), out, ratio)
    return out


@kernel
def _sample(picture, out, ratio):
    height, width, channels = picture.shape
    for row in range(out.shape[0]):
        y = min(row * ratio, height - 1.0)
        top = int(y)
        bottom = min(top + 1, height - 1)
        dy = y - top
        for column in range(out.shape[1]):
            x = min(column * ratio, width - 1.0)
            left = int(x)
            right = min(left + 1, width - 1)
            dx = x - left
            for c in range(channels):
                upper = picture[top, left, c] * (1 - dx) + picture[top, right, c] * dx
                lower = picture[bottom, left, c] * (1 - dx) + picture[bottom, right, c] * dx
                out[row, column, c] = np.uint8(np.rint(upper * (1 - dy) + lower * dy))
