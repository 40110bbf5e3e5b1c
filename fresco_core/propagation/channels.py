"""Which channels of a picture count.

Shape suffixes: H, W rows and columns; C channels.
"""

from __future__ import annotations

import numpy as np

from fresco_core.propagation.compiled import kernel
from fresco_core.propagation.pictures import Picture


def channels_of(picture: Picture) -> Picture:
    """The picture as (H,W,C), reduced to one channel if all are equal."""
    if picture.ndim == 2:
        return picture[..., None]
    return picture[..., :1] if _grey(picture) else picture


def widen(picture_HWC: Picture, count: int) -> Picture:
    """A picture of one channel with it ``count`` times; any other as it is."""
    if picture_HWC.shape[2] == count:
        return picture_HWC
    return np.broadcast_to(picture_HWC, (*picture_HWC.shape[:2], count))


@kernel
def _grey(picture):
    for y in range(picture.shape[0]):
        for x in range(picture.shape[1]):
            for c in range(1, picture.shape[2]):
                if picture[y, x, c] != picture[y, x, 0]:
                    return False
    return True
