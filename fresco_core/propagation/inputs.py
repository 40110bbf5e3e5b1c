"""What propagation is given: a segment's frames, its two key frames and its flows.

Shape suffixes: T frames of the segment, both key frames included; H, W rows and columns; C = RGB;
2 = horizontal (x), vertical (y) displacement in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Segment:
    """Frames from one key frame to the next, both included.

    ``frames_THWC``: uint8 input frames, T >= 2. Key frames: (H,W,3) uint8. Flows are (T-1,2,H,W) in
    pixels: ``forward_flows[i]`` on the grid of frame i towards frame i+1, ``backward_flows[i]`` on
    the grid of frame i+1 towards frame i. Raises ValueError for shapes that do not fit.
    """

    frames_THWC: NDArray[np.uint8]
    first_key_HWC: NDArray[np.uint8]
    second_key_HWC: NDArray[np.uint8]
    forward_flows: NDArray[np.floating[Any]]
    backward_flows: NDArray[np.floating[Any]]

    def __post_init__(self) -> None:
        shape = self.frames_THWC.shape
        if len(shape) != 4 or shape[3] != 3 or shape[0] < 2:
            raise ValueError(f"a segment needs two or more RGB frames, not an array {shape}")
        keys = {"first": self.first_key_HWC, "second": self.second_key_HWC}
        for name, key in keys.items():
            if key.shape != shape[1:]:
                raise ValueError(f"{name} key frame {key.shape} for frames {shape[1:]}")
        for name, flows in (("forward", self.forward_flows), ("backward", self.backward_flows)):
            if flows.shape != (shape[0] - 1, 2, *shape[1:3]):
                raise ValueError(f"{name} flows {flows.shape} for frames {shape}")

    @property
    def between(self) -> int:
        """Number of frames between the key frames, T-2."""
        return len(self.frames_THWC) - 2

    @property
    def size(self) -> tuple[int, int]:
        """Rows, columns."""
        return self.frames_THWC.shape[1], self.frames_THWC.shape[2]
