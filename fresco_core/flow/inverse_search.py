"""OpenCV's dense inverse search (Kroeger et al., ECCV 2016), on arrays: needs no torch.

Shape legend: N pairs of frames, H rows, W columns, C = 3 colours (RGB).
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
Flows = NDArray[np.float32]

# OpenCV refuses frames smaller than a few of its 8-pixel patches: they are extended to this size.
_SMALLEST = 16


class InverseSearch:
    """DIS with OpenCV's medium preset on grey frames; the same whatever OpenCV's threads."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, first_NHWC: Frames, second_NHWC: Frames) -> tuple[Flows, Flows]:
        """Flow of every pair, forward and backward (N,2,H,W), as in `fresco_core.flow.FlowModel`.

        In memory they lie as OpenCV makes them, as (N,H,W,2).

        Args:
            first_NHWC, second_NHWC: uint8 RGB, any H and W.
        """
        first, second = ([_grey(frame) for frame in frames] for frames in (first_NHWC, second_NHWC))
        pairs = list(zip(first, second, strict=True))
        forward = [self._flow(first_HW, second_HW) for first_HW, second_HW in pairs]
        backward = [self._flow(second_HW, first_HW) for first_HW, second_HW in pairs]
        return np.stack(forward).transpose(0, 3, 1, 2), np.stack(backward).transpose(0, 3, 1, 2)

    def _flow(self, first_HW: Frames, second_HW: Frames) -> Flows:
        rows, columns = first_HW.shape
        missing_rows, missing_columns = max(0, _SMALLEST - rows), max(0, _SMALLEST - columns)
        first, second = (
            cv2.copyMakeBorder(grey_HW, 0, missing_rows, 0, missing_columns, cv2.BORDER_REPLICATE)
            for grey_HW in (first_HW, second_HW)
        )
        flow_HW2: Flows = self._dis.calc(first, second, None)[:rows, :columns]
        return flow_HW2


def _grey(frame_HWC: Frames) -> Frames:
    grey_HW: Frames = cv2.cvtColor(np.ascontiguousarray(frame_HWC), cv2.COLOR_RGB2GRAY)
    return grey_HW
