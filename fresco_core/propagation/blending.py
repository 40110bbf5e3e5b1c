"""Merging the frames propagated from the first key frame with those from the second.

Definitions from FRESCO (Yang et al., CVPR 2024).

Shape suffixes: N in-between frames; H, W rows and columns; C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fresco_core.propagation import histogram, poisson
from fresco_core.propagation.options import PropagationOptions
from fresco_core.propagation.pictures import Mask, Picture
from fresco_core.propagation.selection import assemble, choose, steady
from fresco_core.propagation.timing import time_weight


def merge(
    first_NHWC: Sequence[Picture],
    second_NHWC: Sequence[Picture],
    error_first_NHW: Sequence[NDArray[np.float32]],
    error_second_NHW: Sequence[NDArray[np.float32]],
    flows_N2HW: NDArray[np.float32],
    options: PropagationOptions,
) -> Iterator[tuple[Picture, Mask]]:
    """In-between frames and the masks of what came from the second key frame (True), in order.

    All sequences run forwards in time over the in-between frames: element i of each belongs to the
    same frame. ``flows_N2HW[i]``: on the grid of in-between frame i towards the frame before it.
    """
    count = len(first_NHWC)
    mask: Mask | None = None
    for i in range(count):
        weight = time_weight(i, count, options.timing)
        chosen = choose(error_first_NHW[i], error_second_NHW[i], weight)
        mask = chosen if mask is None else steady(chosen, mask, flows_N2HW[i])
        yield merge_frame(first_NHWC[i], second_NHWC[i], mask, weight, options), mask


def merge_frame(
    first_HWC: Picture,
    second_HWC: Picture,
    mask_HW: Mask,
    weight: float,
    options: PropagationOptions,
) -> Picture:
    """One frame from two: chosen pixels, histogram blend, Poisson fusion, as the options say."""
    frame = assemble(first_HWC, second_HWC, mask_HW)
    if options.blend == "histogram":
        frame = histogram.blend(first_HWC, second_HWC, frame, weight)
    if options.poisson:
        frame = poisson.fuse(
            frame,
            first_HWC,
            second_HWC,
            mask_HW,
            weights=options.poisson_weights,
            clip=options.poisson_clip,
            rounding=options.poisson_rounding,
        )
    return frame
