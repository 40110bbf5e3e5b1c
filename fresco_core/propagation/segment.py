"""A segment: both directions and their merging.

Shape suffixes: T frames of the segment, both key frames included; H, W rows and columns; C = RGB;
2 = horizontal (x), vertical (y) displacement in pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fresco_core.propagation.blending import merge
from fresco_core.propagation.chain import propagate_key
from fresco_core.propagation.options import PropagationOptions


def paint_segment(
    frames_THWC: NDArray[np.uint8],
    first_key_HWC: NDArray[np.uint8],
    second_key_HWC: NDArray[np.uint8],
    forward_flows: NDArray[np.float32],
    backward_flows: NDArray[np.float32],
    options: PropagationOptions,
    on_frame: Callable[[], None] | None = None,
) -> NDArray[np.uint8]:
    """The frames between two key frames, (T-2,H,W,3) uint8 RGB, for T > 2.

    Arguments as those of `fresco_core.propagation.propagate`, which checks them.
    """
    from_first = propagate_key(
        frames_THWC[:-1], first_key_HWC, backward_flows[:-1], forward_flows[:-1], options, on_frame
    )
    from_second = propagate_key(
        frames_THWC[:0:-1],
        second_key_HWC,
        forward_flows[:0:-1],
        backward_flows[:0:-1],
        options,
        on_frame,
    )
    # The second run went backwards in time: results and error maps alike are turned round.
    from_second.reverse()
    merged = merge(
        [result.image_HWC for result in from_first],
        [result.image_HWC for result in from_second],
        [result.error_HW for result in from_first],
        [result.error_HW for result in from_second],
        backward_flows[:-1],
        options,
    )
    frames = []
    for frame, _ in merged:
        frames.append(frame)
        if on_frame is not None:
            on_frame()
    return np.stack(frames)


def rehearse(patch: int) -> None:
    """Paint tiny segments, so that all machine code is there that any options of a patch need.

    The defaults go through every kernel; what other options leave out they do not compile either.
    Colour and grey: where no picture has colours, there are half as many channels.
    """
    options = PropagationOptions(patch=patch, votes=2, sweeps=1)
    colour = np.random.default_rng(0).integers(0, 256, (4, 24, 32, 3)).astype(np.uint8)
    grey = np.repeat(colour[..., :1], 3, axis=3)
    flows = np.ones((3, 2, 24, 32), np.float32)
    for frames in (colour, grey):
        paint_segment(frames, frames[0], frames[-1], flows, -flows, options)
