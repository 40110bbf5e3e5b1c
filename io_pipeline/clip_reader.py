"""Read a clip: one pass that learns everything about it, then its frames in order.

Legend: H, W = height and width of a frame as displayed, C = 3 (red, green, blue).
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from fresco_core.errors import ClipError, ConfigError
from io_pipeline import decord_engine
from io_pipeline.clip_info import ClipInfo
from io_pipeline.clip_source import ClipSource, average_rate, orientation, upright
from io_pipeline.colour import Colour, ToRGB

Engine = Literal["auto", "decord", "pyav"]
MAX_PIXELS = 8192 * 8192
THREADS = 2

_DEFAULT_RATE = Fraction(25)
_Frames = Generator[NDArray[np.uint8], None, None]


def scan_clip(
    path: Path,
    *,
    engine: Engine = "auto",
    max_pixels: int = MAX_PIXELS,
    on_truncated: Literal["warn", "fail"] = "warn",
    on_frame: Callable[[int, NDArray[np.uint8]], None] | None = None,
    threads: int = THREADS,
) -> ClipInfo:
    """Decode the whole clip once, one frame at a time, and say what it holds.

    ``on_frame(number, frame_HWC)`` gets every frame as uint8 (H, W, 3) RGB, upright, in
    presentation order. ``engine`` is what :class:`ClipReader` will decode with: "auto" and "pyav"
    are PyAV, as this pass is; "decord" is decord where it delivers the same frames, else PyAV with
    a warning. More than ``max_pixels`` per frame are refused from the header, before any decoding.

    Raises ClipError where the file is missing, no video, without frames, too large or damaged,
    and, with ``on_truncated="fail"``, where it was cut short (otherwise that is a warning).
    """
    path = Path(path)
    if engine == "decord" and not decord_engine.installed():
        raise ConfigError(
            'clips.decoder = "decord", but decord is not installed: install it or choose pyav'
        )
    with ClipSource(path, max_pixels=max_pixels, threads=threads) as source:
        scan = _Scan(source)
        first_HWC: NDArray[np.uint8] | None = None
        for number, frame in enumerate(source.frames()):
            scan.add(frame)
            if on_frame is not None or number == 0:
                frame_HWC = scan.to_array(frame)
                first_HWC = frame_HWC if first_HWC is None else first_HWC
                if on_frame is not None:
                    on_frame(number, frame_HWC)
        info = scan.info()
    if source.cut and on_truncated == "fail":
        raise ClipError(
            f"{path}: {info.warnings[-1]}; copy it again or set clips.on_truncated to warn"
        )
    if engine != "decord":
        return info
    assert first_HWC is not None
    if decord_engine.agrees(info, first_HWC):
        return replace(info, engine="decord")
    disagrees = "decord does not deliver the same frames: it is read with PyAV"
    return replace(info, warnings=(*info.warnings, disagrees))


class ClipReader(AbstractContextManager["ClipReader"]):
    """A clip's frames in presentation order, exactly ``info.frame_count`` of them.

    An iterator to be used once, from one thread; a context manager. Holds a bounded number of
    frames however long the clip is. Raises ClipError where the clip is no longer the one that
    was scanned.
    """

    def __init__(self, info: ClipInfo, *, threads: int = THREADS) -> None:
        self.info = info
        self._delivered = 0
        self._threads = threads
        self._frames: _Frames = (
            decord_engine.frames(info.path, threads) if info.engine == "decord" else self._pyav()
        )

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return self

    def __next__(self) -> NDArray[np.uint8]:
        """The next frame: uint8 (H, W, 3) RGB, upright, of ``info``'s size."""
        if self._delivered == self.info.frame_count:
            self.close()
            raise StopIteration
        frame_HWC: NDArray[np.uint8] | None = next(self._frames, None)
        if frame_HWC is None or frame_HWC.shape[:2] != (self.info.height, self.info.width):
            raise ClipError(
                f"{self.info.path}: changed while it was read (frame {self._delivered} of "
                f"{self.info.frame_count}); leave clips alone until they are done"
            )
        self._delivered += 1
        return frame_HWC

    def close(self) -> None:
        """Release the decoder and the file."""
        self._frames.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _pyav(self) -> _Frames:
        # What was scanned was within the limits; a file swapped since is caught by its size.
        limit = 2 * self.info.width * self.info.height + 65536
        with ClipSource(self.info.path, max_pixels=limit, threads=self._threads) as source:
            scan = _Scan(source)
            for frame in source.frames():
                scan.orient(frame)
                yield scan.to_array(frame)


class _Scan:
    """What one pass has learnt so far."""

    def __init__(self, source: ClipSource) -> None:
        self._source = source
        self._times: list[int] = []
        self._warnings: list[str] = []
        self._first: VideoFrame | None = None
        self._width = self._height = 0

    def orient(self, frame: VideoFrame) -> None:
        """Take size, rotation and colour from the first frame."""
        if self._first is not None:
            if (frame.width, frame.height) != (self._width, self._height):
                self._warn("frames change size: all are scaled to the first one's")
            return
        self._first = frame
        self._width, self._height = frame.width, frame.height
        self.rotation, self.mirrored, exact = orientation(frame)
        if not exact:
            self._warn(f"rotation flag rounded to {self.rotation} degrees")
        self.colour = self._tags(frame)
        self._to_rgb = ToRGB(self.colour, self._width, self._height)

    def add(self, frame: VideoFrame) -> None:
        """Note a frame's time."""
        self.orient(frame)
        step = self._step()
        time = frame.pts if frame.pts is not None else frame.dts
        if time is None:
            self._warn("frames without times: placed at the container's frame rate")
            time = self._times[-1] + step if self._times else 0
        self._times.append(time)

    def to_array(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """A frame as displayed."""
        return upright(self._to_rgb(frame), self.rotation, self.mirrored)

    def info(self) -> ClipInfo:
        """Everything, once all frames were added."""
        source, stream = self._source, self._source.stream
        if self._first is None:
            raise ClipError(
                f"{source.path}: no frame can be decoded; copy it again or re-encode it"
            )
        self._times = self._rising()
        count = len(self._times)
        if stream.frames and count + source.discarded < stream.frames and not source.cut:
            self._warn(f"{count} frames are shown of the {stream.frames} its container lists")
        if source.cut:
            listed = f" of the {stream.frames} its container lists" if stream.frames else ""
            self._warn(f"cut short: {count} frames{listed} can be read")
        end, rate = self._end_and_rate()
        turned = self.rotation % 180 == 90
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        return ClipInfo(
            path=source.path,
            width=self._height if turned else self._width,
            height=self._width if turned else self._height,
            frame_count=count,
            times=tuple(self._times),
            end=end,
            time_base=Fraction(stream.time_base),
            frame_rate=rate,
            rotation=self.rotation,
            mirrored=self.mirrored,
            pixel_aspect=1 / aspect if turned else aspect,
            colour=self.colour,
            sound_tracks=source.sound_tracks,
            codec=stream.codec_context.name,
            pixel_format=self._first.format.name,
            engine="pyav",
            warnings=tuple(self._warnings),
        )

    def _rising(self) -> list[int]:
        """The frames' times, put in order where a container (AVI) cannot say it for B-frames."""
        if all(a < b for a, b in pairwise(self._times)):
            return self._times
        self._warn("its frame times do not rise: they were put in order")
        times = sorted(self._times)
        for number in range(1, len(times)):
            times[number] = max(times[number], times[number - 1] + 1)
        return times

    def _end_and_rate(self) -> tuple[int, Fraction]:
        """When the last frame ends, and the average rate that goes with it.

        The container's rate is taken where it agrees with the frames' times to within a frame,
        so that 30000/1001 stays what it is in containers that round times to milliseconds.
        """
        first, last, count = self._times[0], self._times[-1], len(self._times)
        base = Fraction(self._source.stream.time_base)
        stated = average_rate(self._source.stream)
        end = last + (self._source.last_duration or self._step())
        if stated is not None:
            stated_end = first + count / (stated * base)
            step = 1 / (stated * base)
            if stated_end > last and abs(stated_end - end) <= step:
                return max(last + 1, round(stated_end)), stated
        return end, Fraction(count) / ((end - first) * base)

    def _step(self) -> int:
        """Ticks from one frame to the next, by the last two or by the container's rate."""
        if len(self._times) > 1:
            return self._times[-1] - self._times[-2]
        rate = average_rate(self._source.stream) or _DEFAULT_RATE
        return max(1, round(1 / (rate * Fraction(self._source.stream.time_base))))

    def _tags(self, frame: VideoFrame) -> Colour:
        context = self._source.stream.codec_context
        full = frame.format.is_rgb or frame.format.name.startswith("yuvj") or frame.color_range == 2
        tags = Colour(
            int(frame.colorspace), int(context.color_primaries), int(context.color_trc), bool(full)
        )
        return tags.assumed(frame.width, frame.height)

    def _warn(self, text: str) -> None:
        if text not in self._warnings:
            self._warnings.append(text)
