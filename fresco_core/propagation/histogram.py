"""Blend of two pictures that keeps the contrast of a third.

A plain average of two slightly shifted pictures is flat and dull; here the average gets the mean
and deviation of the minimum-error picture, per Lab channel (FRESCO, Yang et al., CVPR 2024; after
Heitz and Neyret, 2018).

Shape suffixes: H, W rows and columns; C channels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco_core.propagation.compiled import kernel
from fresco_core.propagation.pictures import Picture


def blend(first_HWC: Picture, second_HWC: Picture, like_HWC: Picture, weight: float) -> Picture:
    """Average in 8-bit Lab, ``weight`` for the second picture, with the statistics of ``like_HWC``.

    All uint8 RGB (H,W,3). A channel without variation stays without.

    Each picture is brought to mean 0 and deviation 1 before they are averaged, and so is their
    average: per channel that makes one factor for each picture and an offset, which follow from
    sums over the pixels.
    """
    first, second, like = to_lab(first_HWC), to_lab(second_HWC), to_lab(like_HWC)
    mean, covariance, variance = _statistics(first, second, like)
    a, b = (1 - weight) * _inverse(covariance[:, 0, 0]), weight * _inverse(covariance[:, 1, 1])
    spread = a**2 * covariance[:, 0, 0] + b**2 * covariance[:, 1, 1]
    spread += 2 * a * b * covariance[:, 0, 1]
    gain = np.sqrt(variance) * _inverse(spread)
    factors = np.stack([gain * a, gain * b])
    offset = mean[:, 2] - factors[0] * mean[:, 0] - factors[1] * mean[:, 1]
    _mix(first, second, factors, offset)
    return from_lab(first)


def to_lab(picture_HWC: Picture) -> Picture:
    """RGB to OpenCV's 8-bit Lab."""
    return np.asarray(cv2.cvtColor(picture_HWC, cv2.COLOR_RGB2LAB), np.uint8)


def from_lab(picture_HWC: Picture) -> Picture:
    """OpenCV's 8-bit Lab to RGB."""
    return np.asarray(cv2.cvtColor(picture_HWC, cv2.COLOR_LAB2RGB), np.uint8)


def _inverse(variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """One over the deviation; 0 of what does not vary."""
    # One pixel of a million that differs by one level makes 1e-6.
    flat = variance < 1e-8
    return np.where(flat, 0.0, 1 / np.sqrt(np.where(flat, 1.0, variance)))


def _statistics(
    first_HWC: Picture, second_HWC: Picture, like_HWC: Picture
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Means (C,3) of all, covariances (C,2,2) of the first two, variances (C,) of the third."""
    channels = first_HWC.shape[2]
    sums, products = np.zeros((channels, 3), np.int64), np.zeros((channels, 4), np.int64)
    _add_up(first_HWC, second_HWC, like_HWC, sums, products)
    count = first_HWC.shape[0] * first_HWC.shape[1]
    # Whole numbers until here: a constant channel's variance is 0 or rounding's 1e-11.
    mean, square = sums / count, products / count
    covariance = np.empty((channels, 2, 2))
    covariance[:, 0, 0] = square[:, 0] - mean[:, 0] ** 2
    covariance[:, 0, 1] = covariance[:, 1, 0] = square[:, 1] - mean[:, 0] * mean[:, 1]
    covariance[:, 1, 1] = square[:, 2] - mean[:, 1] ** 2
    return mean, covariance, np.maximum(square[:, 3] - mean[:, 2] ** 2, 0)


@kernel
def _add_up(first, second, like, sums, products):
    """Add values of three pictures, and products of the first two and of the third, by channel."""
    height, width, channels = first.shape
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                a, b = np.int64(first[y, x, c]), np.int64(second[y, x, c])
                d = np.int64(like[y, x, c])
                sums[c, 0] += a
                sums[c, 1] += b
                sums[c, 2] += d
                products[c, 0] += a * a
                products[c, 1] += a * b
                products[c, 2] += b * b
                products[c, 3] += d * d


@kernel
def _mix(first, second, factors, offset):
    """The weighted sum of both, rounded half to even and limited to 0..255, into the first."""
    height, width, channels = first.shape
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                value = first[y, x, c] * factors[0, c] + second[y, x, c] * factors[1, c] + offset[c]
                first[y, x, c] = np.uint8(min(max(np.rint(value), 0.0), 255.0))
