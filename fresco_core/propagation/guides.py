"""What tells the synthesis where the style goes: colour, edge, temporal and positional guides.

The colour guide is the input frame itself. The temporal guide is the frame synthesised before,
the positional guide a picture of coordinates; both are carried along the flow from frame to frame.
Definitions from FRESCO (Yang et al., CVPR 2024) and Jamriška et al., 2019.

Shape suffixes: H, W rows and columns; C channels; 2 = horizontal (x), vertical (y) displacement.
Pictures are uint8 RGB; flows float32 in pixels: pixel p of the flow's grid corresponds to
p + flow(p) of the other picture.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Flow = NDArray[np.float32]
Mask = NDArray[np.bool_]

_LAPLACIAN = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], np.float32)


def edges(picture_HWC: Picture) -> Picture:
    """Laplacian of every channel, saturated to 0..255; the border is mirrored."""
    filtered = cv2.filter2D(picture_HWC, -1, _LAPLACIAN, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(filtered, np.uint8)


def positions(height: int, width: int) -> Picture:
    """Picture (H,W,3) of coordinates: red rises downwards, green to the right, blue is 0."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = (np.linspace(0, 1, height) * 255).astype(np.uint8)[:, None]
    picture[..., 1] = (np.linspace(0, 1, width) * 255).astype(np.uint8)[None, :]
    return picture


def warp_nearest(picture: NDArray[Any], flow_2HW: Flow) -> NDArray[Any]:
    """Picture (H,W) or (H,W,C) seen through a flow; nearest pixel, 0 outside.

    Coordinates are rounded half to even after the way through -1..1 that torch's ``grid_sample``
    takes, which decides what is exactly a half.
    """
    height, width = picture.shape[:2]
    y, x = np.indices((height, width), np.float32)
    column = np.rint(_through_unit_range(x + flow_2HW[0], width))
    row = np.rint(_through_unit_range(y + flow_2HW[1], height))
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    warped = np.zeros_like(picture)
    warped[inside] = picture[row[inside].astype(np.intp), column[inside].astype(np.intp)]
    return warped


def _through_unit_range(coordinate: Flow, side: int) -> Flow:
    """The same coordinates, with the float32 rounding of mapping 0..side-1 to -1..1 and back."""
    last = np.float32(max(side - 1, 1))
    return np.asarray(((2 * coordinate / last - 1) + 1) / 2 * last, np.float32)


def warp_linear(picture: NDArray[Any], flow_2HW: Flow) -> NDArray[np.float32]:
    """Picture (H,W) or (H,W,C) seen through a flow; bilinear, float32.

    Each of the four neighbours that lies outside the picture counts as 0.
    """
    height, width = picture.shape[:2]
    # A ring of zeros wide enough for every coordinate clamped to it.
    padded = np.pad(picture.astype(np.float32), ((2, 2), (2, 2)) + ((0, 0),) * (picture.ndim - 2))
    y, x = np.indices((height, width), np.float32)
    x = np.clip(x + flow_2HW[0], -2, width) + 2
    y = np.clip(y + flow_2HW[1], -2, height) + 2
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    dx, dy = x - left, y - top
    if picture.ndim == 3:
        dx, dy = dx[..., None], dy[..., None]
    upper = padded[top, left] * (1 - dx) + padded[top, left + 1] * dx
    lower = padded[top + 1, left] * (1 - dx) + padded[top + 1, left + 1] * dx
    return np.asarray(upper * (1 - dy) + lower * dy, np.float32)


def occlusion(flow_2HW: Flow, back_2HW: Flow) -> Mask:
    """Pixels (H,W) of the flow's grid that the other picture does not show.

    There, going to the other picture and back (``back_2HW``: the flow on its grid) misses the start
    by more than 1 % of both displacements plus half a pixel. No colours are compared.
    """
    returned = warp_linear(np.moveaxis(back_2HW, 0, -1), flow_2HW)
    miss = np.hypot(flow_2HW[0] + returned[..., 0], flow_2HW[1] + returned[..., 1])
    moved = np.hypot(*flow_2HW) + np.hypot(*back_2HW)
    return np.asarray(miss > 0.01 * moved + 0.5, np.bool_)


def carry(
    picture_HWC: Picture, flow_2HW: Flow, occluded_HW: Mask, radius: int, scale: int = 1
) -> Picture:
    """Guide of the next frame: the guide before it seen through the flow, holes filled.

    ``flow_2HW`` and ``occluded_HW`` are on the next frame's grid; ``radius`` and ``scale`` as in
    ``fill``.
    """
    return fill(warp_nearest(picture_HWC, flow_2HW), occluded_HW, radius, scale)


def fill(picture_HWC: Picture, hole_HW: Mask, radius: int, scale: int = 1) -> Picture:
    """Telea's inpainting (2004) of the hole from the pixels within ``radius``.

    Its cost grows with the hole and with the square of the radius. With ``scale`` > 1 it works on
    a picture reduced by that factor, made of the known pixels only, and the hole gets the enlarged
    result: about scale⁴ times quicker, and smoother.
    """
    if not hole_HW.any():
        return picture_HWC
    if scale == 1:
        return _telea(picture_HWC, hole_HW, radius)
    height, width = hole_HW.shape
    rows, columns = -(-height // scale), -(-width // scale)
    margin = ((0, rows * scale - height), (0, columns * scale - width), (0, 0))
    known = ~hole_HW[..., None]
    blocks = (rows, scale, columns, scale, -1)
    count = np.pad(known, margin).reshape(blocks).sum((1, 3))
    total = np.pad(picture_HWC * known, margin).reshape(blocks).sum((1, 3))
    small = np.rint(total / np.maximum(count, 1)).astype(np.uint8)
    small = _telea(small, count[..., 0] == 0, max(1, radius // scale))
    size = (columns * scale, rows * scale)
    large = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)[:height, :width]
    return np.where(known, picture_HWC, large)


def _telea(picture_HWC: Picture, hole_HW: Mask, radius: int) -> Picture:
    filled = cv2.inpaint(picture_HWC, hole_HW.astype(np.uint8) * 255, radius, cv2.INPAINT_TELEA)
    return np.asarray(filled, np.uint8)
