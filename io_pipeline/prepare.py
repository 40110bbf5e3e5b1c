"""Prepare: plan a clip, then read it window by window at working size.

Shapes: T frames of a window, K new key frames, M ControlNets, H x W working size, RGB.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco_core.errors import ClipError
from fresco_core.keyframes import (
    DIFFERENCE_RESOLUTION,
    DifferenceCurve,
    batch_key_frames,
    resize_frame,
    select_key_frames,
    working_size,
)
from io_pipeline.control_reader import ControlReader, scan_control
from io_pipeline.control_source import ControlFile, assign
from io_pipeline.options import KeyFrameOptions
from io_pipeline.plan import ClipPlan
from io_pipeline.video import MAX_PIXELS, ClipReader, Engine, scan_clip
from io_pipeline.window import Window

Array = NDArray[np.uint8]
OnFrame = Callable[[int], None]


class Prepare:
    """Plans clips and opens them for reading; holds no more than a few frames of any."""

    def __init__(self, *, max_pixels: int = MAX_PIXELS, threads: int = 1) -> None:
        self._max_pixels = max_pixels
        self._threads = threads

    def plan(
        self,
        path: Path,
        options: KeyFrameOptions,
        decoder: Engine = "auto",
        on_frame: OnFrame | None = None,
        controls: Sequence[ControlFile] = (),
        kinds: Sequence[str] = (),
    ) -> ClipPlan:
        """Decode a clip once to count its frames and choose key frames; keeps no frame.

        Args:
            path: the clip.
            options: which frames become key frames, and of what size.
            decoder: what reads the clip, now and later; see `scan_clip`.
            on_frame: called with the number of each frame decoded.
            controls: files of control maps that come with the clip.
            kinds: of the ControlNets, in order.

        Raises:
            ClipError: the clip cannot be decoded, or would be too large at working size; or control
                maps cannot be read, or are not as many as the clip's frames or of another size.
            ConfigError: the decoder is not installed.
        """
        files, unused = assign(controls, kinds)
        curve = DifferenceCurve()
        adaptive = options.min_interval != options.max_interval

        def see(number: int, frame_HWC: Array) -> None:
            if number == 0:
                height, width, _ = frame_HWC.shape
                largest = max(options.resolution, DIFFERENCE_RESOLUTION)
                self._refuse_size(path, height, width, largest)
            curve.add(frame_HWC)

        def count(number: int) -> None:
            if on_frame is not None:
                on_frame(number)

        info = scan_clip(
            path,
            engine=decoder,
            on_truncated=options.on_truncated,
            max_pixels=self._max_pixels,
            on_frame=see if adaptive else None,  # without, frames are counted, not converted
            on_number=count,
            threads=self._threads,
        )
        self._refuse_size(path, info.height, info.width, options.resolution)
        differences = curve.values() if adaptive else np.zeros(info.frame_count)
        keys = select_key_frames(differences, options.min_interval, options.max_interval)
        batches = batch_key_frames(keys, options.batch_size)
        if options.first_batch_only:
            batches = batches[:1]
        plan = ClipPlan(
            replace(info, warnings=(*info.warnings, *unused)),
            working_size(info.height, info.width, options.resolution),
            tuple(number for batch in batches for number in batch.new),
            batches,
        )

        def still(_: int) -> None:  # there is progress, though no more frames
            count(info.frame_count - 1)

        sources = {
            file: scan_control(
                file.path,
                plan,
                engine=decoder,
                max_pixels=self._max_pixels,
                threads=self._threads,
                on_number=still,
            )
            for file in dict.fromkeys(files)
            if file is not None
        }
        return replace(
            plan, controls=tuple(None if file is None else sources[file] for file in files)
        )

    def _refuse_size(self, path: Path, height: int, width: int, largest: int) -> None:
        """Raise ClipError where resizing makes a clip too large: a low, long strip grows by far.

        Adaptive key frames need the clip at the size where differences are measured as well.
        """
        rows, columns = working_size(height, width, largest)
        if rows * columns > self._max_pixels:
            raise ClipError(
                f"{path}: {width}x{height} would become {columns}x{rows}, more than the "
                f"{self._max_pixels} pixels allowed (limits.max_pixels); crop the clip, raise the "
                f"limit or, above {DIFFERENCE_RESOLUTION}, lower key_frames.resolution"
            )

    def windows(self, plan: ClipPlan) -> "WindowReader":
        """Open a planned clip to read its windows; a context manager."""
        return WindowReader(plan, max_pixels=self._max_pixels, threads=self._threads)


class WindowReader(AbstractContextManager["WindowReader"]):
    """A second pass over a clip, one window at a time, forwards only.

    It holds two frames: the clip's first, and the last of a window, with which the next one begins.
    """

    def __init__(self, plan: ClipPlan, *, max_pixels: int = MAX_PIXELS, threads: int = 1) -> None:
        self._reader = ClipReader(plan.info, threads=threads)
        self._controls = ControlReader(plan, max_pixels=max_pixels, threads=threads)
        self._resolution = plan.resolution
        self._next = 0
        self._first_HWC: Array | None = None
        self._last_HWC: Array | None = None

    def skip_to(self, number: int, on_frame: OnFrame | None = None) -> None:
        """Pass over the frames before ``number``: decoded, but neither converted nor resized.

        Only the clip's first frame is, which every window may want.

        Raises:
            ClipError: the file changed or broke since it was planned.
        """
        while self._next < number:
            if self._next == 0:
                self._first_HWC = resize_frame(next(self._reader), self._resolution).copy()
            else:
                self._reader.skip()
            self._last_HWC = None
            self._count(on_frame)

    def read(
        self,
        window: Window,
        frames_THWC: Array,
        on_frame: OnFrame | None = None,
        controls_2KMHW: Array | None = None,
        first_HWC: Array | None = None,
    ) -> None:
        """Fill a window's frames, (T,H,W,3) uint8 RGB; windows in between are passed over.

        ``controls_2KMHW``: filled with those of its control maps that come with the clip;
        ``first_HWC`` with the clip's first frame.
        ``on_frame`` is called with the clip frame number of each frame decoded.

        Raises:
            ClipError: a file changed or broke since it was planned.
            ValueError: the window lies behind, or its frames do not fit into the array.
        """
        first = window.first_frame
        if len(frames_THWC) != window.frame_count:
            raise ValueError(f"{window.frame_count} frames for an array of {len(frames_THWC)}")
        if self._last_HWC is not None and first == self._next - 1:
            frames_THWC[0] = self._last_HWC
        elif first < self._next:
            raise ValueError(f"window {window.index} lies behind: frame {self._next} is next")
        self.skip_to(first, on_frame)
        for offset in range(self._next - first, window.frame_count):
            # Made where it stays: a block is filled without a copy.
            resize_frame(next(self._reader), self._resolution, frames_THWC[offset])
            self._count(on_frame)
        if first == 0:
            self._first_HWC = frames_THWC[0].copy()
        self._last_HWC = frames_THWC[-1].copy()
        if first_HWC is not None:
            assert self._first_HWC is not None
            first_HWC[:] = self._first_HWC
        if controls_2KMHW is not None:
            self._controls.read(window, controls_2KMHW, lambda _: self._still(on_frame))

    def close(self) -> None:
        """Release the decoder and the file."""
        self._controls.close()
        self._reader.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _still(self, on_frame: OnFrame | None) -> None:
        """There is progress, though no more frames."""
        if on_frame is not None:
            on_frame(self._next - 1)

    def _count(self, on_frame: OnFrame | None) -> None:
        self._next += 1
        if on_frame is not None:
            on_frame(self._next - 1)
