"""OpenCV's dense inverse search as a flow model: no weights, quick on a CPU.

Shape legend: N pairs of frames, H rows, W columns.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fresco_core.flow.inverse_search import InverseSearch


class DisFlow:
    """`InverseSearch` on tensors."""

    name = "dis"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._search = InverseSearch()

    def __call__(self, first_N3HW: Tensor, second_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`fresco_core.flow.FlowModel`."""
        forward, backward = self._search(_array(first_N3HW), _array(second_N3HW))
        return (
            torch.from_numpy(forward).to(self._device),
            torch.from_numpy(backward).to(self._device),
        )


def _array(frames_N3HW: Tensor) -> NDArray[np.uint8]:
    frames_NHWC: NDArray[np.uint8] = frames_N3HW.permute(0, 2, 3, 1).cpu().numpy()
    return frames_NHWC
