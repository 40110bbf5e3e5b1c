"""Which of two pictures each pixel is taken from: `fresco_core.propagation.selection` in batches.

Shape suffixes: K pictures; H, W rows and columns; C channels; 2 = horizontal (x), vertical (y)
displacement. Masks are bool: True takes the second picture.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fresco_core.propagation.gpu.warp import warp_nearest


def choose(error_first_KHW: Tensor, error_second_KHW: Tensor, weights_K: Tensor) -> Tensor:
    """The picture with the smaller weighted error: its float64 weight for the first, the rest to 1
    for the second.

    0 takes the first picture everywhere, 1 the second.
    """
    weights_K11 = weights_K[:, None, None]
    first = weights_K11.float() * error_first_KHW
    second = (1 - weights_K11).float() * error_second_KHW
    return ((first >= second) & (weights_K11 > 0)) | (weights_K11 >= 1)


def steady(masks_KHW: Tensor, previous_KHW: Tensor, flows_K2HW: Tensor) -> Tensor:
    """The masks, and whatever the previous frames took from the second picture.

    ``flows_K2HW`` is on these frames' grids towards the previous frames.
    """
    return masks_KHW | warp_nearest(previous_KHW, flows_K2HW)


def assemble(first_KHWC: Tensor, second_KHWC: Tensor, masks_KHW: Tensor) -> Tensor:
    """The chosen pixels as pictures."""
    return torch.where(masks_KHW[..., None], second_KHWC, first_KHWC)
