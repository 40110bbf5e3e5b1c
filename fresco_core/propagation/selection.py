"""Which of two pictures each pixel is taken from, steadily over time.

Shape suffixes: H, W rows and columns; C channels. Masks are bool: True takes the second picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fresco_core.propagation.pictures import Flow, Mask, Picture
from fresco_core.propagation.warp import warp_nearest


def choose(
    error_first_HW: NDArray[np.float32], error_second_HW: NDArray[np.float32], weight: float
) -> Mask:
    """The picture with the smaller weighted error: ``weight`` for the first, the rest to 1 for the
    second.

    0 takes the first picture everywhere, 1 the second.
    """
    if weight <= 0:
        return np.zeros(error_first_HW.shape, np.bool_)
    if weight >= 1:
        return np.ones(error_first_HW.shape, np.bool_)
    first = np.float32(weight) * error_first_HW
    second = np.float32(1 - weight) * error_second_HW
    return np.asarray(first >= second, np.bool_)


def steady(mask_HW: Mask, previous_HW: Mask, flow_2HW: Flow) -> Mask:
    """The mask, and whatever the previous frame took from the second picture.

    ``flow_2HW`` is on this frame's grid towards the previous frame. A pixel that has gone over to
    the second picture stays there, so that the seam does not flicker.
    """
    return mask_HW | warp_nearest(previous_HW, flow_2HW)


def assemble(first_HWC: Picture, second_HWC: Picture, mask_HW: Mask) -> Picture:
    """The chosen pixels as one picture."""
    return np.where(mask_HW[..., None], second_HWC, first_HWC)
