"""OpenCV's dense inverse search (Kroeger et al., ECCV 2016): no weights, quick on a CPU.

Shape legend: N pairs of frames, H rows, W columns.
"""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# OpenCV refuses frames smaller than a few of its 8-pixel patches: they are extended to this size.
_SMALLEST = 16


class DisFlow:
    """DIS with OpenCV's medium preset on grey frames."""

    name = "dis"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, first_N3HW: Tensor, second_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`fresco_core.flow.FlowModel`."""
        pairs = [
            (_grey(first_3HW), _grey(second_3HW))
            for first_3HW, second_3HW in zip(first_N3HW, second_N3HW, strict=True)
        ]
        forward = [self._flow(first_HW, second_HW) for first_HW, second_HW in pairs]
        backward = [self._flow(second_HW, first_HW) for first_HW, second_HW in pairs]
        return self._stack(forward), self._stack(backward)

    def _flow(self, first_HW: NDArray[np.uint8], second_HW: NDArray[np.uint8]) -> Tensor:
        rows, columns = first_HW.shape
        missing_rows, missing_columns = max(0, _SMALLEST - rows), max(0, _SMALLEST - columns)
        first, second = (
            cv2.copyMakeBorder(grey_HW, 0, missing_rows, 0, missing_columns, cv2.BORDER_REPLICATE)
            for grey_HW in (first_HW, second_HW)
        )
        flow_HW2: NDArray[np.float32] = self._dis.calc(first, second, None)[:rows, :columns]
        return torch.from_numpy(np.ascontiguousarray(flow_HW2.transpose(2, 0, 1)))

    def _stack(self, flows: list[Tensor]) -> Tensor:
        return torch.stack(flows).to(self._device)


def _grey(frame_3HW: Tensor) -> NDArray[np.uint8]:
    frame_HWC = np.ascontiguousarray(frame_3HW.permute(1, 2, 0).cpu().numpy())
    grey_HW: NDArray[np.uint8] = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)
    return grey_HW
