"""RGB to OpenCV's 8-bit Lab and back, on a device.

By tables of all 2**24 colours, made by OpenCV itself: whichever version is installed, both sides of
propagation mean the same.

Shape suffixes: N colours; C channels; ... any others.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import torch
from torch import Tensor

TABLES = 2 * 3 << 24
"""Bytes of both tables on a device."""


def to_lab(pictures_C: Tensor) -> Tensor:
    """uint8 RGB (...,3) to 8-bit Lab."""
    return _looked_up(pictures_C, _table(cv2.COLOR_RGB2LAB, pictures_C.device))


def from_lab(pictures_C: Tensor) -> Tensor:
    """8-bit Lab (...,3) to uint8 RGB."""
    return _looked_up(pictures_C, _table(cv2.COLOR_LAB2RGB, pictures_C.device))


def _looked_up(pictures_C: Tensor, table_NC: Tensor) -> Tensor:
    first, second, third = pictures_C.int().unbind(-1)
    index = (first << 16).add_(second << 8).add_(third)
    return table_NC.index_select(0, index.flatten()).view(pictures_C.shape)


@cache
def _table(code: int, device: torch.device) -> Tensor:
    levels = np.arange(256, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)
    # As a picture: OpenCV works in rows.
    converted = cv2.cvtColor(colours.reshape(4096, 4096, 3), code)
    return torch.from_numpy(converted.reshape(-1, 3)).to(device)
