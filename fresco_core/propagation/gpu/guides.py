"""The guides of many frames at once, on a device: `fresco_core.propagation.guides` in batches.

Shape suffixes: K pictures; H, W rows and columns; C channels; 2 = horizontal (x), vertical (y)
displacement. Pictures are uint8 RGB, flows float32 in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fresco_core.propagation.gpu.filling import fill
from fresco_core.propagation.gpu.parts import in_parts
from fresco_core.propagation.gpu.warp import occlusion, warp_nearest


def edges(pictures_KHWC: Tensor) -> Tensor:
    """Laplacian of every channel, saturated to 0..255; the border is mirrored."""
    values = pictures_KHWC.short()
    found = 4 * values
    for dim in (1, 2):
        last = values.shape[dim] - 1
        # Beyond the border is the pixel next to it.
        mirrored = min(1, last), max(last - 1, 0)
        found -= torch.cat([values.narrow(dim, mirrored[0], 1), values.narrow(dim, 0, last)], dim)
        found -= torch.cat([values.narrow(dim, 1, last), values.narrow(dim, mirrored[1], 1)], dim)
    return found.clamp_(0, 255).to(torch.uint8)


def carry(pictures_KHWC: Tensor, flows_K2HW: Tensor, backs_K2HW: Tensor) -> Tensor:
    """Guides of the next frames: those before seen through the flows, occluded pixels filled.

    ``flows_K2HW`` is on the next frames' grids, ``backs_K2HW`` the other way round, on the grids of
    the frames before.
    """
    return in_parts(_carry, pictures_KHWC, flows_K2HW, backs_K2HW)


def _carry(pictures_KHWC: Tensor, flows_K2HW: Tensor, backs_K2HW: Tensor) -> Tensor:
    occluded = occlusion(flows_K2HW, backs_K2HW)
    return fill(warp_nearest(pictures_KHWC, flows_K2HW), occluded)
