"""Blend of two pictures that keeps the contrast of a third.

A plain average of two slightly shifted pictures is flat and dull; here the average gets the mean
and deviation of the minimum-error picture, per Lab channel (FRESCO, Yang et al., CVPR 2024; after
Heitz and Neyret, 2018).

Shape suffixes: H, W rows and columns; C channels.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco_core.propagation.guides import Picture


def blend(first_HWC: Picture, second_HWC: Picture, like_HWC: Picture, weight: float) -> Picture:
    """Average in 8-bit Lab, ``weight`` for the second picture, with the statistics of ``like_HWC``.

    All uint8 RGB (H,W,3). A channel without variation stays without.
    """
    mixed = (1 - weight) * _standard(to_lab(first_HWC)) + weight * _standard(to_lab(second_HWC))
    like = to_lab(like_HWC).astype(np.float64)
    matched = _standard(mixed) * like.std((0, 1)) + like.mean((0, 1))
    return from_lab(np.clip(np.rint(matched), 0, 255).astype(np.uint8))


def to_lab(picture_HWC: Picture) -> Picture:
    """RGB to OpenCV's 8-bit Lab."""
    return np.asarray(cv2.cvtColor(picture_HWC, cv2.COLOR_RGB2LAB), np.uint8)


def from_lab(picture_HWC: Picture) -> Picture:
    """OpenCV's 8-bit Lab to RGB."""
    return np.asarray(cv2.cvtColor(picture_HWC, cv2.COLOR_LAB2RGB), np.uint8)


def _standard(picture_HWC: NDArray[Any]) -> NDArray[np.float64]:
    """Every channel at mean 0 and deviation 1; 0 where it does not vary."""
    centred = picture_HWC - picture_HWC.mean((0, 1))
    deviation = centred.std((0, 1))
    # Rounding leaves about 1e-14 of a constant channel.
    flat = deviation < 1e-6
    return np.where(flat, 0.0, centred / np.where(flat, 1.0, deviation))
