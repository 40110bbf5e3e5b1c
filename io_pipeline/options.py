"""What a job may choose about key frames and control maps."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class KeyFrameOptions:
    """Which frames of a clip become key frames, and what is made of the clip before.

    Attributes:
        min_interval, max_interval: least distance of key frames, and the largest aimed at; where
            they differ, key frames go where the picture changes.
        batch_size: key frames translated together, the two carried ones included.
        resolution: short side of the working size in pixels, a multiple of 64.
        on_truncated: a clip that was cut short is taken as it is ("warn") or refused ("fail").
        first_batch_only: nothing is done with the frames after the first batch's.
    """

    min_interval: int
    max_interval: int
    batch_size: int
    resolution: int
    on_truncated: Literal["warn", "fail"] = "warn"
    first_batch_only: bool = False


@dataclass(frozen=True)
class MapOptions:
    """How control maps are drawn: canny's lower and upper threshold."""

    canny_low: int = 50
    canny_high: int = 100
