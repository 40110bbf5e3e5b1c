"""Holes filled with what is around them, on a device: `fresco_core.propagation.filling`, scale 0.

The same operations as on the CPU, and so the same values. The pyramid always ends at one pixel:
whether a level has no holes would have to be asked of the device, and coarser ones change nothing
then. Its levels are small, so that the operations are counted: each costs a launch.

Shape suffixes: K pictures; H, W rows and columns; C channels; D = C+1, the last one tells what is
known: 1, or 0.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional


def fill(pictures_KHWC: Tensor, holes_KHW: Tensor) -> Tensor:
    """uint8 pictures with their holes (bool) filled by averages of the known pixels, the nearer the
    finer; what is known stays. Without any known pixel the result is black.
    """
    known = ~holes_KHW[..., None]
    pictures_KHWC = pictures_KHWC * known
    height, width = holes_KHW.shape[1:]
    if height == width == 1:
        return pictures_KHWC
    levels = [_halve(torch.cat([pictures_KHWC, known], -1).float())]
    while max(levels[-1].shape[1:3]) > 1:
        levels.append(_halve(levels[-1]))
    channels = pictures_KHWC.shape[3]
    filled = levels.pop().narrow(3, 0, channels)
    for level in reversed(levels):
        value, share = level.split([channels, 1], 3)
        filled = torch.where(share > 0, value, _enlarge(filled, level.shape[1], level.shape[2]))
    return torch.where(known, pictures_KHWC, _enlarge(filled, height, width).to(torch.uint8))


def _halve(fine_KHWD: Tensor) -> Tensor:
    """Means of what is known in 2x2 blocks, summed row by row; those at the end may be smaller."""
    height, width = fine_KHWD.shape[1:3]
    if height % 2 or width % 2:
        fine_KHWD = functional.pad(fine_KHWD, (0, 0, 0, width % 2, 0, height % 2))
    left, right = fine_KHWD.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).unbind(4)
    (upper_left, lower_left), (upper_right, lower_right) = left.unbind(2), right.unbind(2)
    total = (upper_left + upper_right).add_(lower_left).add_(lower_right)
    return total.div_(total.narrow(3, -1, 1).clamp(min=1))


def _enlarge(coarse_KHWC: Tensor, height: int, width: int) -> Tensor:
    """To twice as many pixels along both dimensions, or one less; bilinear."""
    for dim, side in ((2, width), (1, height)):
        count = coarse_KHWC.shape[dim]
        beside = coarse_KHWC.index_select(dim, _beside(count, coarse_KHWC.device))
        near = (0.75 * coarse_KHWC).unsqueeze(dim + 1)
        # A quarter is exact: however it is added, the sum is rounded once.
        enlarged = torch.add(near, beside.unflatten(dim, (count, 2)), alpha=0.25)
        coarse_KHWC = enlarged.flatten(dim, dim + 1)
        if side < 2 * count:
            coarse_KHWC = coarse_KHWC.narrow(dim, 0, side)
    return coarse_KHWC


@lru_cache(64)
def _beside(count: int, device: torch.device) -> Tensor:
    """Of twice as many pixels, the coarse one on the other side than that which they lie in."""
    coarse = torch.arange(count)
    return torch.stack([coarse - 1, coarse + 1], 1).flatten().clamp_(0, count - 1).to(device)
