"""Read a clip: one pass that learns everything about it, then its frames in order.

Legend: H, W = height and width of a frame as displayed, C = 3 (red, green, blue).
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from fresco_core.errors import ClipError, ConfigError
from io_pipeline import decord_engine
from io_pipeline.clip_info import ClipInfo
from io_pipeline.clip_source import ClipSource, average_rate, colour_tags, orientation, upright
from io_pipeline.colour import ToRGB
from io_pipeline.frame_times import end_and_rate, rising

Engine = Literal["auto", "decord", "decord-only", "pyav"]
MAX_PIXELS = 8192 * 8192
THREADS = 2

_DEFAULT_RATE = Fraction(25)
# Decoded frames whose conversion to RGB is still to come: whoever skips one goes without.
_Pictures = Generator[Callable[[], NDArray[np.uint8]], None, None]


def scan_clip(
    path: Path,
    *,
    engine: Engine = "auto",
    max_pixels: int = MAX_PIXELS,
    on_truncated: Literal["warn", "fail"] = "warn",
    on_frame: Callable[[int, NDArray[np.uint8]], None] | None = None,
    on_number: Callable[[int], None] = lambda number: None,
    threads: int = THREADS,
) -> ClipInfo:
    """Decode the whole clip once, one frame at a time, and say what it holds.

    ``on_frame(number, frame_HWC)`` gets every frame as uint8 (H, W, 3) RGB, upright, in
    presentation order; ``on_number(number)`` is told of every frame as well, for those who need no
    pictures. ``engine`` is what :class:`ClipReader` will decode with: "auto" and "pyav" are PyAV,
    as this pass is; "decord" is decord where it delivers the same frames, else PyAV with
    a warning. "decord-only" does this pass with decord as well, for a clip that PyAV hangs on (see
    :func:`decord_engine.scan`). More than ``max_pixels`` per frame are refused from the header,
    before any decoding.

    Raises ClipError where the file is missing, no video, without frames, too large or damaged,
    and, with ``on_truncated="fail"``, where it was cut short (otherwise that is a warning).
    """
    path = Path(path)
    if engine == "decord" and not decord_engine.installed():
        raise ConfigError(
            'clips.decoder = "decord", but decord is not installed: install it or choose pyav'
        )
    if engine == "decord-only":

        def see(number: int, frame_HWC: NDArray[np.uint8]) -> None:
            if on_frame is not None:
                on_frame(number, frame_HWC)
            on_number(number)

        return decord_engine.scan(path, max_pixels=max_pixels, on_frame=see, threads=threads)
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
            on_number(number)
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
        self._pictures: _Pictures = (
            decord_engine.pictures(info.path, threads, info.frame_count)
            if info.engine == "decord"
            else self._pyav()
        )

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return self

    def __next__(self) -> NDArray[np.uint8]:
        """The next frame: uint8 (H, W, 3) RGB, upright, of ``info``'s size."""
        if self._delivered == self.info.frame_count:
            self.close()
            raise StopIteration
        picture = next(self._pictures, None)
        frame_HWC = None if picture is None else picture()
        if frame_HWC is None or frame_HWC.shape != (self.info.height, self.info.width, 3):
            raise self._changed()
        self._delivered += 1
        return frame_HWC

    def skip(self) -> None:
        """Pass over the next frame: it is decoded, which is the lesser part of delivering it."""
        if next(self._pictures, None) is None:
            raise self._changed()
        self._delivered += 1

    def close(self) -> None:
        """Release the decoder and the file."""
        self._pictures.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _changed(self) -> ClipError:
        return ClipError(
            f"{self.info.path}: changed while it was read (frame {self._delivered} of "
            f"{self.info.frame_count}); leave clips alone until they are done"
        )

    def _pyav(self) -> _Pictures:
        # What was scanned was within the limits; a file swapped since is caught by its size.
        limit = 2 * self.info.width * self.info.height + 65536
        with ClipSource(self.info.path, max_pixels=limit, threads=self._threads) as source:
            scan = _Scan(source)
            for frame in source.frames():
                scan.orient(frame)
                yield partial(scan.to_array, frame)


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
        self.colour = colour_tags(frame, self._source.stream.codec_context)
        self._to_rgb = ToRGB(self.colour, self._width, self._height)

    def add(self, frame: VideoFrame) -> None:
        """Note a frame's time."""
        self.orient(frame)
        step = self._step(self._times)
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
        times = rising(self._times)
        if times != tuple(self._times):
            self._warn("its frame times do not rise: they were put in order")
        count = len(times)
        if stream.frames and count + source.discarded < stream.frames and not source.cut:
            self._warn(f"{count} frames are shown of the {stream.frames} its container lists")
        if source.cut:
            listed = f" of the {stream.frames} its container lists" if stream.frames else ""
            self._warn(f"cut short: {count} frames{listed} can be read")
        end, rate = end_and_rate(
            times,
            source.last_duration or self._step(times),
            Fraction(stream.time_base),
            average_rate(stream),
        )
        turned = self.rotation % 180 == 90
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        return ClipInfo(
            path=source.path,
            width=self._height if turned else self._width,
            height=self._width if turned else self._height,
            frame_count=count,
            times=times,
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

    def _step(self, times: Sequence[int]) -> int:
        """Ticks from one frame to the next, by the last two or by the container's rate."""
        if len(times) > 1:
            return times[-1] - times[-2]
        rate = average_rate(self._source.stream) or _DEFAULT_RATE
        return max(1, round(1 / (rate * Fraction(self._source.stream.time_base))))

    def _warn(self, text: str) -> None:
        if text not in self._warnings:
            self._warnings.append(text)
