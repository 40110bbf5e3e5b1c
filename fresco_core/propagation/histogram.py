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
    mean_a, mean_b, mean, covariance, variance = _statistics(first, second, like)
    shares = (1 - weight) * _inverse(covariance[:, 0, 0]), weight * _inverse(covariance[:, 1, 1])
    spread = sum(shares[i] * shares[j] * covariance[:, i, j] for i in range(2) for j in range(2))
    gain = np.sqrt(variance) * _inverse(spread)
    factors = np.stack([gain * shares[0], gain * shares[1]])
    _mix(first, second, factors, mean - factors[0] * mean_a - factors[1] * mean_b)
    return from_lab(first)


def to_lab(picture_HWC: Picture) -> Picture:
    """RGB to OpenCV's 8-bit Lab."""
    return np.asarray(cv2.cvtColor(picture_HWC, cv2.COLOR_RGB2LAB), np.uint8)


def from_lab(picture_HWC: Picture) -> Picture:
    """OpenCV's 8-bit Lab to RGB."""
    return np.asarray(cv2.cvtColor(picture_HWC, cv2.COLOR_LAB2RGB), np.uint8)


def _inverse(variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """One over the deviation; 0 of what does not vary."""
    # Rounding leaves about 1e-14 of a constant channel.
    flat = variance < 1e-12
    return np.where(flat, 0.0, 1 / np.sqrt(np.where(flat, 1.0, variance)))


@kernel
def _statistics(first, second, like):
    """Means (C,) of three pictures, covariances (C,2,2) of the first two, variance of the third."""
    height, width, channels = first.shape
    sums = np.zeros((channels, 8), np.int64)
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                a, b = np.int64(first[y, x, c]), np.int64(second[y, x, c])
                d = np.int64(like[y, x, c])
                sums[c, 0] += a
                sums[c, 1] += b
                sums[c, 2] += d
                sums[c, 3] += a * a
                sums[c, 4] += a * b
                sums[c, 5] += b * b
                sums[c, 6] += d * d
    moments = sums / (height * width)
    means = moments[:, 0].copy(), moments[:, 1].copy(), moments[:, 2].copy()
    covariance = np.empty((channels, 2, 2))
    covariance[:, 0, 0] = moments[:, 3] - means[0] ** 2
    covariance[:, 0, 1] = moments[:, 4] - means[0] * means[1]
    covariance[:, 1, 0] = covariance[:, 0, 1]
    covariance[:, 1, 1] = moments[:, 5] - means[1] ** 2
    variance = np.maximum(moments[:, 6] - means[2] ** 2, 0.0)
    return means[0], means[1], means[2], covariance, variance


@kernel
def _mix(first, second, factors, offset):
    """The weighted sum of both, rounded half to even and limited to 0..255, into the first."""
    height, width, channels = first.shape
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                value = first[y, x, c] * factors[0, c] + second[y, x, c] * factors[1, c] + offset[c]
                first[y, x, c] = np.uint8(min(max(np.rint(value), 0.0), 255.0))
