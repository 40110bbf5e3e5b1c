"""A segment on a device.

Shape suffixes: T frames of the segment, both key frames included; N = T-2 between them; H, W rows
and columns; C = RGB; 2 = horizontal (x), vertical (y) displacement in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fresco_core.propagation.inputs import Segment
from fresco_core.propagation.timing import time_weight


@dataclass(frozen=True, eq=False)
class Step:
    """What a chain needs to go on by a frame.

    ``flow_2HW``: on the grid of that frame towards the one before, ``back_2HW`` the other way.
    """

    frame_HWC: Tensor
    flow_2HW: Tensor
    back_2HW: Tensor


@dataclass(frozen=True, eq=False)
class Block:
    """A segment's arrays; ``weights_N`` (float64) of the second key frame, by frame between."""

    frames_THWC: Tensor
    first_key_HWC: Tensor
    second_key_HWC: Tensor
    forward_flows: Tensor
    backward_flows: Tensor
    weights_N: Tensor

    @classmethod
    def of(cls, segment: Segment, timing: str, device: torch.device) -> Block:
        count = segment.between
        weights = [time_weight(i, count, timing) for i in range(count)]
        return cls(
            _sent(segment.frames_THWC, device),
            _sent(segment.first_key_HWC, device),
            _sent(segment.second_key_HWC, device),
            _sent(segment.forward_flows, device),
            _sent(segment.backward_flows, device),
            torch.tensor(weights, dtype=torch.float64, device=device),
        )

    @property
    def between(self) -> int:
        return len(self.weights_N)

    @property
    def keys(self) -> tuple[Tensor, Tensor]:
        return self.first_key_HWC, self.second_key_HWC

    @property
    def sources(self) -> tuple[Tensor, Tensor]:
        """The frames of both key frames."""
        return self.frames_THWC[0], self.frames_THWC[-1]

    def steps(self, number: int) -> tuple[Step, Step]:
        """Step ``number`` of the chain from the first key frame, and of that from the second."""
        last = self.between - number
        return (
            Step(
                self.frames_THWC[number + 1],
                self.backward_flows[number],
                self.forward_flows[number],
            ),
            Step(self.frames_THWC[last], self.forward_flows[last], self.backward_flows[last]),
        )


def _sent(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array on the device, at once where its memory is pinned; it must stay until all is done.

    One that cannot be written is copied first: torch warns of those.
    """
    sound = np.require(array, requirements=["C", "W"])
    return torch.from_numpy(sound).to(device, non_blocking=True)
