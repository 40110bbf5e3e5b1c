"""Pictures and flows seen through a flow.

Shape suffixes: H, W rows and columns; C channels; 2 = horizontal (x), vertical (y) displacement.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fresco_core.propagation.compiled import kernel
from fresco_core.propagation.pictures import Flow, Mask

I = np.int64  # noqa: E741
F = np.float32


def warp_nearest(picture: NDArray[Any], flow_2HW: Flow) -> NDArray[Any]:
    """Picture (H,W) or (H,W,C), uint8 or bool, seen through a flow; nearest pixel, 0 outside.

    Coordinates are rounded half to even after the way through -1..1 that torch's ``grid_sample``
    takes, which decides what is exactly a half.
    """
    source = np.ascontiguousarray(picture).view(np.uint8)
    warped = np.zeros_like(source)
    layers = (*source.shape[:2], -1)
    _nearest(source.reshape(layers), np.ascontiguousarray(flow_2HW), warped.reshape(layers))
    return warped.view(picture.dtype)


def warp_linear(picture: NDArray[Any], flow_2HW: Flow) -> NDArray[np.float32]:
    """Picture (H,W) or (H,W,C) seen through a flow; bilinear, float32.

    Each of the four neighbours that lies outside the picture counts as 0.
    """
    source = np.ascontiguousarray(picture, np.float32)
    warped = np.empty_like(source)
    layers = (*source.shape[:2], -1)
    _linear(source.reshape(layers), np.ascontiguousarray(flow_2HW), warped.reshape(layers))
    return warped


def occlusion(flow_2HW: Flow, back_2HW: Flow) -> Mask:
    """Pixels (H,W) of the flow's grid that the other picture does not show.

    There, going to the other picture and back (``back_2HW``: the flow on its grid) misses the start
    by more than 1 % of both displacements plus half a pixel. No colours are compared.
    """
    occluded = np.empty(flow_2HW.shape[1:], np.bool_)
    _occlusion(np.ascontiguousarray(flow_2HW), np.ascontiguousarray(back_2HW), occluded)
    return occluded


@kernel
def _through_unit_range(coordinate, last):
    """The same coordinate, with the float32 rounding of mapping 0..last to -1..1 and back."""
    return ((F(2) * coordinate / last - F(1)) + F(1)) / F(2) * last


@kernel
def _nearest(picture, flow, out):
    height, width, channels = picture.shape
    last_x, last_y = F(max(width - 1, 1)), F(max(height - 1, 1))
    for y in range(height):
        for x in range(width):
            column = np.rint(_through_unit_range(F(x) + flow[0, y, x], last_x))
            row = np.rint(_through_unit_range(F(y) + flow[1, y, x], last_y))
            if F(0) <= column < F(width) and F(0) <= row < F(height):
                for c in range(channels):
                    out[y, x, c] = picture[I(row), I(column), c]


@kernel
def _corners(x, y, height, width):
    """Four neighbours of a point and their shares; one outside has the share 0 and is the first."""
    # Clamped to where all four are outside.
    x = min(max(x, F(-2)), F(width))
    y = min(max(y, F(-2)), F(height))
    left, top = I(np.floor(x)), I(np.floor(y))
    dx, dy = np.float64(x) - left, np.float64(y) - top
    inside_l, inside_r = 0 <= left < width, -1 <= left < width - 1
    inside_t, inside_b = 0 <= top < height, -1 <= top < height - 1
    return (
        left if inside_l else 0,
        left + 1 if inside_r else 0,
        top if inside_t else 0,
        top + 1 if inside_b else 0,
        1 - dx if inside_l else 0.0,
        dx if inside_r else 0.0,
        1 - dy if inside_t else 0.0,
        dy if inside_b else 0.0,
    )


@kernel
def _linear(picture, flow, out):
    height, width, channels = picture.shape
    for y in range(height):
        for x in range(width):
            left, right, top, bottom, a, b, c, d = _corners(
                F(x) + flow[0, y, x], F(y) + flow[1, y, x], height, width
            )
            for k in range(channels):
                upper = picture[top, left, k] * a + picture[top, right, k] * b
                lower = picture[bottom, left, k] * a + picture[bottom, right, k] * b
                out[y, x, k] = F(upper * c + lower * d)


@kernel
def _occlusion(flow, back, out):
    _, height, width = flow.shape
    for y in range(height):
        for x in range(width):
            u, v = flow[0, y, x], flow[1, y, x]
            left, right, top, bottom, a, b, c, d = _corners(F(x) + u, F(y) + v, height, width)
            miss, length = 0.0, 0.0
            for k in range(2):
                upper = back[k, top, left] * a + back[k, top, right] * b
                lower = back[k, bottom, left] * a + back[k, bottom, right] * b
                miss += (np.float64(flow[k, y, x]) + F(upper * c + lower * d)) ** 2
                length += np.float64(back[k, y, x]) ** 2
            moved = np.sqrt(np.float64(u) ** 2 + np.float64(v) ** 2) + np.sqrt(length)
            out[y, x] = np.sqrt(miss) > 0.01 * moved + 0.5
