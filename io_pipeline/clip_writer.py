"""Write a clip: H.264 in mp4 with another clip's times, rate, size and sound.

Legend: H, W = height and width of a frame, C = 3 (red, green, blue).
"""

import bisect
import math
from contextlib import AbstractContextManager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from numpy.typing import NDArray

from io_pipeline.clip_info import ClipInfo
from io_pipeline.colour import FromRGB
from io_pipeline.sound import Sound, sample_rates
from io_pipeline.writing import writing

# FFmpeg's fractions and timescales hold 32 bits with a sign.
_MAX_INTEGER = 2**31 - 1


class ClipWriter(AbstractContextManager["ClipWriter"]):
    """Encodes frames one by one; at most the encoder's look-ahead is held in memory.

    The mp4 gets the presentation times, average rate, pixel aspect and colour tags of ``info``
    and, where ``sound_from`` names a file, all its sound tracks, copied packet by packet and
    interleaved as the frames come. Frames of another size are resized to ``width`` x ``height``
    (default: ``info``'s). yuv420p where both sides are even, else yuv444p, which keeps an odd
    size. ``threads`` encoder threads: fixed, so that several writers run side by side and one
    input gives one file.

    A context manager: closes the file, or, when left by an exception, abandons it (an incomplete
    file stays for the caller to delete). ``warnings`` are sentences for the user; more may come
    until it is closed. Raises FrescodError where the file cannot be written, ClipError where the
    sound cannot be read.
    """

    def __init__(
        self,
        path: Path,
        info: ClipInfo,
        *,
        crf: int = 18,
        preset: str = "medium",
        sound_from: Path | None = None,
        width: int | None = None,
        height: int | None = None,
        threads: int = 2,
    ) -> None:
        self.path = path
        self.info = info
        self.width = info.width if width is None else width
        self.height = info.height if height is None else height
        self.warnings: list[str] = []
        self._written = 0
        self._sound: Sound | None = None
        self._held: av.Packet | None = None
        self._first_dts: int | None = None
        timescale = _timescale(info)
        self._time_base = Fraction(1, timescale)
        self._times, self._end = _times(info, timescale)
        colour = info.colour.limited()
        even = self.width % 2 == 0 and self.height % 2 == 0
        pixel_format = "yuv420p" if even else "yuv444p"
        self._from_rgb = FromRGB(colour, pixel_format)
        with writing(path):
            self._container = av.open(
                str(path.absolute()),
                "w",
                format="mp4",
                options={
                    "movflags": "+faststart",
                    "video_track_timescale": str(timescale),
                    # The times at which sound and picture start are written in this unit.
                    "movie_timescale": str(_movie_timescale(timescale, sound_from)),
                },
            )
        try:
            rate = _encoders_rate(info.frame_rate)
            self._stream = self._container.add_stream("libx264", rate=rate)
            context = self._stream.codec_context
            context.width, context.height = self.width, self.height
            context.pix_fmt = pixel_format
            context.time_base = self._time_base
            context.framerate = rate
            context.thread_count = threads
            context.color_range = 1
            context.colorspace = colour.matrix
            context.color_primaries = colour.primaries
            context.color_trc = colour.transfer
            if (self.width, self.height) == (info.width, info.height):
                context.sample_aspect_ratio = info.pixel_aspect
            context.options = {"crf": str(crf), "preset": preset}
            if not info.steady:
                # With B-frames the file's length follows from decoding times, which for uneven
                # frames cannot say when the last one ends.
                context.options |= {"bf": "0"}
            if sound_from is not None:
                self._sound = Sound(sound_from, self._container, shift=_shift(info))
                self.warnings = self._sound.warnings
            with writing(path):
                self._container.start_encoding()
        except BaseException:
            self.abandon()
            raise

    def write(self, frame_HWC: NDArray[np.uint8]) -> None:
        """Encode the next frame: uint8 (h, w, 3) RGB of any size."""
        if self._written == len(self._times):
            raise ValueError(f"{self.path}: all {len(self._times)} frames are already written")
        frame = self._from_rgb(resized(frame_HWC, self.width, self.height))
        frame.pts = self._times[self._written]
        frame.time_base = self._time_base
        self._written += 1
        with writing(self.path):
            self._take(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file. Raises ValueError where frames are missing."""
        if self._written != len(self._times):
            self.abandon()
            raise ValueError(
                f"{self.path}: {self._written} of {len(self._times)} frames were written"
            )
        try:
            with writing(self.path):
                self._take(self._stream.encode(None))
                assert self._held is not None
                assert self._first_dts is not None
                covered = self._held.dts - self._first_dts
                self._held.duration = max(1, self._end - self._times[0] - covered)
                self._container.mux(self._held)
                self._held = None
                if self._sound is not None:
                    self._sound.copy_rest()
                    self._sound.close()
                self._container.close()
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Let go of the file as it is."""
        self._held = None
        if self._sound is not None:
            self._sound.close()
        with suppress(av.error.FFmpegError, OSError, ValueError):
            self._container.close()

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _take(self, packets: list[Any]) -> None:
        """Pass on encoded packets, one late: the last one's duration is known only at the end."""
        for packet in packets:
            if self._first_dts is None:
                self._first_dts = packet.dts
            number = bisect.bisect_left(self._times, packet.pts)
            following = self._times[number + 1] if number + 1 < len(self._times) else self._end
            packet.duration = following - packet.pts
            if self._held is not None:
                self._container.mux(self._held)
            self._held = packet
            if self._sound is not None:
                self._sound.copy_until(packet.dts * self._time_base)


def _timescale(info: ClipInfo) -> int:
    """Ticks per second in which all frame times and the clip's whole length are whole numbers."""
    timescale = math.lcm(info.time_base.denominator, info.frame_rate.numerator)
    return timescale if timescale <= _MAX_INTEGER else info.time_base.denominator


def _encoders_rate(rate: Fraction) -> Fraction:
    """The frame rate, or the nearest to it that the encoder can be told.

    Uneven times make averages of long fractions. It is only a hint: the frames' times decide.
    """
    near = rate.limit_denominator(max(1, _MAX_INTEGER // math.ceil(rate)))
    return max(near, Fraction(1, _MAX_INTEGER))


def _movie_timescale(timescale: int, sound_from: Path | None) -> int:
    """Ticks per second that hold the start of the picture and of every sound track exactly."""
    for rate in sample_rates(sound_from) if sound_from is not None else ():
        common = math.lcm(timescale, rate)
        timescale = common if common <= _MAX_INTEGER else timescale
    return timescale


def _shift(info: ClipInfo) -> Fraction:
    """Seconds by which everything is moved: mp4 cannot show frames before time zero."""
    return max(Fraction(0), -info.times[0] * info.time_base)


def _times(info: ClipInfo, timescale: int) -> tuple[list[int], int]:
    """Presentation times and the end of the last frame, in ticks of ``timescale``."""
    shift = _shift(info)
    times = [round((time * info.time_base + shift) * timescale) for time in info.times]
    # The length that makes the average rate exact, where it is the end to within a frame.
    end = round((info.end * info.time_base + shift) * timescale)
    exact = times[0] + round(info.frame_count / info.frame_rate * timescale)
    if times[-1] < exact and abs(exact - end) * info.frame_rate <= timescale:
        end = exact
    return times, end


def resized(frame_HWC: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """A uint8 (h, w, 3) frame at another size: area averaging where it shrinks, else Lanczos."""
    h, w = frame_HWC.shape[:2]
    if (w, h) == (width, height):
        return frame_HWC
    shrinks = width * height < w * h
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
    resized_HWC: NDArray[np.uint8] = cv2.resize(frame_HWC, (width, height), interpolation=method)
    return resized_HWC
