"""What tells the synthesis where the style goes: colour, edge, temporal and positional guides.

The colour guide is the input frame itself. The temporal guide is the frame synthesised before,
the positional guide a picture of coordinates; both are carried along the flow from frame to frame.
Definitions from FRESCO (Yang et al., CVPR 2024) and Jamriška et al., 2019.

Shape suffixes: H, W rows and columns; C channels; 2 = horizontal (x), vertical (y) displacement.
Pictures are uint8 RGB; flows float32 in pixels: pixel p of the flow's grid corresponds to
p + flow(p) of the other picture.
"""

from __future__ import annotations

import cv2
import numpy as np

from fresco_core.propagation.filling import fill
from fresco_core.propagation.pictures import Flow, Mask, Picture
from fresco_core.propagation.warp import warp_nearest

_LAPLACIAN = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], np.float32)


def edges(picture_HWC: Picture) -> Picture:
    """Laplacian of every channel, saturated to 0..255; the border is mirrored."""
    filtered = cv2.filter2D(picture_HWC, -1, _LAPLACIAN, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(filtered, np.uint8)


def carry(
    picture_HWC: Picture, flow_2HW: Flow, occluded_HW: Mask, radius: int, scale: int = 1
) -> Picture:
    """Guide of the next frame: the guide before it seen through the flow, holes filled.

    ``flow_2HW`` and ``occluded_HW`` are on the next frame's grid; ``radius`` and ``scale`` as in
    ``fill``.
    """
    return fill(warp_nearest(picture_HWC, flow_2HW), occluded_HW, radius, scale)
