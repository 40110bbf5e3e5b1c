"""Holes filled with what is around them, on a device: `fresco_core.propagation.filling`, scale 0.

The same operations as on the CPU, and so the same values. The pyramid always ends at one pixel:
whether a level has no holes would have to be asked of the device, and coarser ones change nothing
then.

Shape suffixes: K pictures; H, W rows and columns; C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def fill(pictures_KHWC: Tensor, holes_KHW: Tensor) -> Tensor:
    """uint8 pictures with their holes (bool) filled by averages of the known pixels, the nearer the
    finer; what is known stays. Without any known pixel the result is black.
    """
    known = ~holes_KHW[..., None]
    values = [pictures_KHWC * known]
    shares = [known]
    while max(values[-1].shape[1:3]) > 1:
        value, share = _halve(values[-1].float(), shares[-1].float())
        values.append(value)
        shares.append(share > 0)
    filled = values.pop()
    for value, share in zip(reversed(values), reversed(shares[:-1]), strict=True):
        filled = _enlarge(_enlarge(filled, value.shape[2], 2), value.shape[1], 1)
        filled = torch.where(share, value, filled.to(value.dtype))
    return filled.to(torch.uint8)


def _halve(value_KHWC: Tensor, share_KHW1: Tensor) -> tuple[Tensor, Tensor]:
    """Means of what is known in 2x2 blocks, and of how many pixels."""
    total, share = _sums(value_KHWC), _sums(share_KHW1)
    return total.div_(share.clamp(min=1)), share


def _sums(value_KHWC: Tensor) -> Tensor:
    """Of 2x2 blocks, row by row; those at the end may be smaller."""
    _, height, width, _ = value_KHWC.shape
    margin = (0, 0, 0, width % 2, 0, height % 2)
    even = functional.pad(value_KHWC, margin)
    upper, lower = even[:, ::2], even[:, 1::2]
    total = upper[:, :, ::2] + upper[:, :, 1::2]
    return total.add_(lower[:, :, ::2]).add_(lower[:, :, 1::2])


def _enlarge(coarse_KHWC: Tensor, side: int, dim: int) -> Tensor:
    """To twice as many pixels along a dimension, or one less; bilinear."""
    count = coarse_KHWC.shape[dim]
    half = torch.arange(side, device=coarse_KHWC.device)
    # A coarse pixel's centre lies between those of its fine ones.
    near = half // 2
    beside = (near + half % 2 * 2 - 1).clamp_(0, count - 1)
    enlarged = (0.75 * coarse_KHWC).index_select(dim, near)
    return enlarged.add_((0.25 * coarse_KHWC).index_select(dim, beside))
