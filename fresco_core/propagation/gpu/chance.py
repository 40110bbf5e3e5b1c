"""Random numbers by counting: 32 bits for a key and a counter, in any order, on any device.

The mixing function is Wellons' lowbias32 ("Hash Function Prospector").
"""

from __future__ import annotations

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
FIRST, SECOND = 0x7FEB352D, 0x846CA68B
STRIDE = 0x9E3779B1
"""Between the inputs of two counters."""


def mix(number: int) -> int:
    """32 bits that look like no other number's."""
    number &= MASK
    number = ((number ^ number >> 16) * FIRST) & MASK
    number = ((number ^ number >> 15) * SECOND) & MASK
    return number ^ number >> 16


def key(*numbers: int) -> int:
    """32 bits for a list of numbers."""
    found = 0
    for number in numbers:
        found = mix(found * STRIDE + number + 1)
    return found


def draw(key: int, counters: Tensor) -> Tensor:
    """Of each counter (int64), 32 bits in int64."""
    number = (counters * STRIDE + key) & MASK
    number = ((number ^ number >> 16) * FIRST) & MASK
    number = ((number ^ number >> 15) * SECOND) & MASK
    return number ^ number >> 16


def first_counters(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, dtype=torch.int64, device=device)
