"""From one level of the pyramid to another: pictures made smaller, fields larger.

Plain torch, the same on every device.

Shape suffixes: K pictures or chains; H, W rows and columns; C channels; N pixels, row by row.
A field holds the source patch centre of every target pixel: ``y << 16 | x`` in int32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fresco_core.propagation.level_sizes import Size, level_size


def reduce(pictures_KHWC: Tensor, level: int) -> Tensor:
    """uint8 pictures at a level, bilinear point samples as `fresco_core.propagation.pyramid` has
    them, to the bit.
    """
    if level == 0:
        return pictures_KHWC
    height, width = pictures_KHWC.shape[1:3]
    rows, columns = level_size((height, width), level)
    top, bottom, dy = _places(rows, height, width / columns, pictures_KHWC.device)
    left, right, dx = _places(columns, width, width / columns, pictures_KHWC.device)
    dx, dy = dx[:, None], dy[:, None, None]

    def across(y: Tensor) -> Tensor:
        line = pictures_KHWC[:, y]
        return line[:, :, left] * (1 - dx) + line[:, :, right] * dx

    return (across(top) * (1 - dy) + across(bottom) * dy).round().to(torch.uint8)


def _places(
    count: int, side: int, ratio: float, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Both pixels that each of ``count`` samples lies between, and its distance to the first."""
    place = (torch.arange(count, dtype=torch.float64, device=device) * ratio).clamp_(max=side - 1.0)
    first = place.long()
    return first, (first + 1).clamp_(max=side - 1), place - first


def enlarge(field_KN: Tensor, coarse: Size, size: Size, source: Size, patch: int) -> Tensor:
    """The field of the level above at this level: neighbours stay neighbours, clear of borders."""
    y, x = _grid(size, field_KN.device)
    at = (y // 2).clamp_(max=coarse[0] - 1) * coarse[1] + (x // 2).clamp_(max=coarse[1] - 1)
    from_KN = field_KN[:, at.flatten()]
    new_y = 2 * (from_KN >> 16) + (y % 2).expand(size).flatten()
    new_x = 2 * (from_KN & 0xFFFF) + (x % 2).expand(size).flatten()
    new_y.clamp_(*_clear(source[0], patch))
    new_x.clamp_(*_clear(source[1], patch))
    return new_y << 16 | new_x


def scatter(numbers_N: Tensor, chains: int, source: Size, patch: int) -> Tensor:
    """A random field for each chain, all alike, from 32 random bits a pixel (int64)."""
    radius = patch // 2
    y = radius + ((numbers_N >> 16) * (source[0] - 2 * radius) >> 16)
    x = radius + ((numbers_N & 0xFFFF) * (source[1] - 2 * radius) >> 16)
    return (y << 16 | x).int().repeat(chains, 1)


def _grid(size: Size, device: torch.device) -> tuple[Tensor, Tensor]:
    y = torch.arange(size[0], dtype=torch.int32, device=device)[:, None]
    return y, torch.arange(size[1], dtype=torch.int32, device=device)[None]


def _clear(side: int, patch: int) -> tuple[int, int]:
    """First and last patch centre a patch away from the border, or where there are any."""
    low, high = patch, side - patch - 1
    return (low, high) if low <= high else (patch // 2, side - 1 - patch // 2)
