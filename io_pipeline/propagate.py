"""Propagate: segment -> the frames between two key frames.

Shapes: T frames of a segment, both key frames included, H x W working size, RGB.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fresco_core.flow import FlowModel
from fresco_core.propagation import PropagationOptions, propagate
from io_pipeline.prepare import Window

# Frame pairs given to the flow model at once; bounds its memory on long segments.
FLOW_PAIRS = 8

Array = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Segment:
    """The frames between two neighbouring key frames.

    Attributes:
        first_frame: clip frame number of the first key frame.
        frames_THWC: (T,H,W,3) uint8 RGB inputs, those of both key frames included.
        first_key_HWC, second_key_HWC: the translated key frames.
    """

    first_frame: int
    frames_THWC: Array
    first_key_HWC: Array
    second_key_HWC: Array


def segments(window: Window, keys_KHWC: Array, previous_key_HWC: Array | None) -> Iterator[Segment]:
    """The segments that end at a window's new key frames, in order.

    Args:
        keys_KHWC: (K,H,W,3) uint8, the window's translated key frames.
        previous_key_HWC: the last key frame of the window before; None for the first window, whose
            first key frame then ends no segment.
    """
    numbers, keys = list(window.key_numbers), list(keys_KHWC)
    if previous_key_HWC is not None:
        numbers.insert(0, window.first_frame)
        keys.insert(0, previous_key_HWC)
    for i in range(len(numbers) - 1):
        begin, end = (number - window.first_frame for number in numbers[i : i + 2])
        yield Segment(numbers[i], window.frames_THWC[begin : end + 1], keys[i], keys[i + 1])


class Propagate:
    """Finds the flow of a segment and carries its key frames to the frames between."""

    def __init__(self, flow: FlowModel, options: PropagationOptions) -> None:
        self._flow = flow
        self._options = options

    def __call__(self, segment: Segment) -> Array:
        """In-between frames (T-2,H,W,3) uint8 RGB."""
        if len(segment.frames_THWC) <= 2:
            return segment.frames_THWC[:0]
        forward, backward = self._pair_flows(segment.frames_THWC)
        return propagate(
            segment.frames_THWC,
            segment.first_key_HWC,
            segment.second_key_HWC,
            forward,
            backward,
            options=self._options,
        )

    def _pair_flows(self, frames_THWC: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        frames_T3HW = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)
        forward, backward = [], []
        with torch.no_grad():
            for i in range(0, len(frames_T3HW) - 1, FLOW_PAIRS):
                first_N3HW = frames_T3HW[i : i + FLOW_PAIRS]
                second_N3HW = frames_T3HW[i + 1 : i + 1 + FLOW_PAIRS]
                there, back = self._flow(first_N3HW[: len(second_N3HW)], second_N3HW)
                forward.append(there.cpu().numpy())
                backward.append(back.cpu().numpy())
        return np.concatenate(forward), np.concatenate(backward)
