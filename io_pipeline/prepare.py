"""Prepare: clip -> windows of resized frames with their key frames' control maps.

Shapes: T frames of a window, K new key frames, H x W working size, RGB.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fresco_core.errors import ClipError
from fresco_core.keyframes import (
    DIFFERENCE_RESOLUTION,
    Batch,
    DifferenceCurve,
    batch_key_frames,
    resize_frame,
    select_key_frames,
    working_size,
)
from io_pipeline.video import MAX_PIXELS, ClipInfo, ClipReader, Engine, scan_clip

Array = NDArray[np.uint8]


class Detector(Protocol):
    """Draws the control map (H,W) uint8 of a frame (H,W,3) uint8 RGB."""

    def __call__(self, frame_HWC: Array, /) -> Array: ...


@dataclass(frozen=True)
class ClipPlan:
    """What one pass over a clip tells: its frames, key frames and batches.

    `working_size` is (height, width); `batches` hold frame numbers of the clip.
    """

    info: ClipInfo
    working_size: tuple[int, int]
    key_numbers: tuple[int, ...]
    batches: tuple[Batch, ...]


@dataclass(frozen=True, eq=False)
class Window:
    """The frames that one batch of key frames needs, at working size.

    Attributes:
        index, count: which window of how many.
        first_frame: clip frame number of `frames_THWC[0]`: 0, or the last key frame of the window
            before, whose frame is thus in both.
        frames_THWC: (T,H,W,3) uint8 RGB, up to the batch's last key frame.
        key_numbers: clip frame numbers of the new key frames.
        controls_KHW: (K,H,W) uint8 control maps of the new key frames, or None without ControlNet.
    """

    index: int
    count: int
    first_frame: int
    frames_THWC: Array
    key_numbers: tuple[int, ...]
    controls_KHW: Array | None

    @property
    def key_frames_KHWC(self) -> Array:
        """Inputs of the new key frames, (K,H,W,3) uint8 RGB."""
        return self.frames_THWC[[number - self.first_frame for number in self.key_numbers]]


class Prepare:
    """Plans clips and reads them window by window; never a whole clip."""

    def __init__(
        self,
        detector: Detector | None,
        *,
        min_interval: int,
        max_interval: int,
        batch_size: int,
        resolution: int,
        decoder: Engine = "auto",
        on_truncated: Literal["warn", "fail"] = "warn",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._detector = detector
        self._min_interval = min_interval
        self._max_interval = max_interval
        self._batch_size = batch_size
        self._resolution = resolution
        self._decoder = decoder
        self._on_truncated = on_truncated
        self._max_pixels = max_pixels

    def plan(self, path: Path, on_frame: Callable[[int], None] | None = None) -> ClipPlan:
        """Decode a clip once to count its frames and choose key frames; keeps no frame.

        Args:
            path: the clip.
            on_frame: called with the number of each frame decoded.

        Raises:
            ClipError: the clip cannot be decoded, or would be too large at working size.
        """
        curve = DifferenceCurve()
        adaptive = self._min_interval != self._max_interval

        def see(number: int, frame_HWC: Array) -> None:
            if number == 0:
                height, width, _ = frame_HWC.shape
                self._refuse_size(path, height, width, adaptive)
            if adaptive:
                curve.add(frame_HWC)
            if on_frame is not None:
                on_frame(number)

        info = scan_clip(
            path,
            engine=self._decoder,
            on_truncated=self._on_truncated,
            max_pixels=self._max_pixels,
            on_frame=see,
        )
        differences = curve.values() if adaptive else np.zeros(info.frame_count)
        keys = select_key_frames(differences, self._min_interval, self._max_interval)
        return ClipPlan(
            info,
            working_size(info.height, info.width, self._resolution),
            keys,
            batch_key_frames(keys, self._batch_size),
        )

    def _refuse_size(self, path: Path, height: int, width: int, adaptive: bool) -> None:
        """Raise ClipError where resizing makes a clip too large: a low, long strip grows by far.

        Adaptive key frames need the clip at the size where differences are measured as well.
        """
        largest = max(self._resolution, DIFFERENCE_RESOLUTION if adaptive else 0)
        rows, columns = working_size(height, width, largest)
        if rows * columns > self._max_pixels:
            raise ClipError(
                f"{path}: {width}x{height} would become {columns}x{rows}, more than the "
                f"{self._max_pixels} pixels allowed (limits.max_pixels); crop the clip, raise the "
                f"limit or, above {DIFFERENCE_RESOLUTION}, lower key_frames.resolution"
            )

    def windows(self, plan: ClipPlan) -> Generator[Window]:
        """Read the clip a second time, one window in memory at a time.

        Raises:
            ClipError: the file changed or broke since it was planned.
        """
        with ClipReader(plan.info) as reader:
            frames = iter(reader)
            held: list[Array] = []
            first = 0
            for index, batch in enumerate(plan.batches):
                while first + len(held) <= batch.new[-1]:
                    held.append(resize_frame(next(frames), self._resolution))
                frames_THWC = np.stack(held)
                held.clear()
                controls_KHW = None
                if self._detector is not None:
                    maps = [self._detector(frames_THWC[number - first]) for number in batch.new]
                    controls_KHW = np.stack(maps)
                yield Window(index, len(plan.batches), first, frames_THWC, batch.new, controls_KHW)
                held = [frames_THWC[-1].copy()]
                first = batch.new[-1]
