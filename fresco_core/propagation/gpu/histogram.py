"""Blend of two pictures that keeps the contrast of a third, on a device, in batches.

As `fresco_core.propagation.histogram`, whose formulas these are: sums are whole numbers and the
rest float64, so that the results are the same.

Shape suffixes: K pictures; H, W rows and columns; C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fresco_core.propagation.gpu.lab import from_lab, to_lab


def blend(first_KHWC: Tensor, second_KHWC: Tensor, like_KHWC: Tensor, weights_K: Tensor) -> Tensor:
    """Averages in 8-bit Lab, float64 weights for the second picture, with the statistics of
    ``like_KHWC``. All uint8 RGB. A channel without variation stays without.
    """
    first, second, like = (to_lab(picture) for picture in (first_KHWC, second_KHWC, like_KHWC))
    # A tensor: by a plain number the device would multiply with its inverse.
    pixels = first.shape[1] * first.shape[2]
    count = torch.full((1,), float(pixels), dtype=torch.float64, device=first.device)
    numbers = [picture.int() for picture in (first, second, like)]
    mean = [_sum(number) / count for number in numbers]
    square = [_sum(number * number) / count for number in numbers]
    variance = [square[i] - mean[i] * mean[i] for i in range(3)]
    covariance = _sum(numbers[0] * numbers[1]) / count - mean[0] * mean[1]
    weight_K1 = weights_K[:, None]
    a, b = (1 - weight_K1) * _inverse(variance[0]), weight_K1 * _inverse(variance[1])
    spread = a * a * variance[0] + b * b * variance[1]
    spread += 2 * a * b * covariance
    gain = variance[2].clamp(min=0).sqrt() * _inverse(spread)
    factors = gain * a, gain * b
    offset = mean[2] - factors[0] * mean[0] - factors[1] * mean[1]
    mixed = _wide(factors[0]) * first
    mixed.add_(_wide(factors[1]) * second).add_(_wide(offset))
    return from_lab(mixed.round_().clamp_(0, 255).to(torch.uint8))


def _wide(value_KC: Tensor) -> Tensor:
    return value_KC[:, None, None]


def _sum(number_KHWC: Tensor) -> Tensor:
    """Exact, float64 (K,C). A row's sum of squares fits in 32 bits up to 33000 columns."""
    return number_KHWC.sum(2, dtype=torch.int32).sum(1, dtype=torch.int64).double()


def _inverse(variance: Tensor) -> Tensor:
    """One over the deviation; 0 of what does not vary."""
    flat = variance < 1e-8
    return torch.where(flat, 0.0, 1 / torch.where(flat, 1.0, variance).sqrt())
