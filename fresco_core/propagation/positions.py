"""The positional guide before anything has moved. Needs no Numba."""

from __future__ import annotations

import numpy as np

from fresco_core.propagation.pictures import Picture


def positions(height: int, width: int) -> Picture:
    """Picture (H,W,3) of coordinates: red rises downwards, green to the right, blue is 0."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = (np.linspace(0, 1, height) * 255).astype(np.uint8)[:, None]
    picture[..., 1] = (np.linspace(0, 1, width) * 255).astype(np.uint8)[None, :]
    return picture
