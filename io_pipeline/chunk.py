"""Encode some frames of a clip into a file of their own, to be joined with its neighbours later.

Legend: H, W = height and width of a frame, C = 3 (red, green, blue).
"""

import math
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from numpy.typing import NDArray

from io_pipeline.clip_info import ClipInfo
from io_pipeline.colour import Colour, FromRGB
from io_pipeline.writing import writing

# FFmpeg's fractions and timescales hold 32 bits with a sign.
MAX_INTEGER = 2**31 - 1
# A chunk's clock: one tick a frame. When frames are shown is decided where chunks are joined.
_TICK = Fraction(1, 25)
_CPU = Path("/proc/cpuinfo")


def _same_bytes() -> dict[str, str]:
    """Options without which x264 does not always make the same of the same frames."""
    with suppress(OSError), _CPU.open() as processors:
        # Those of the first one: to be told of all takes long where there are many.
        flags = next((line for line in processors if line.startswith("flags")), "")
        if "avx512f" in flags.split():  # its macroblock tree: see decision 0053
            return {"x264-params": "asm=AVX2"}
    return {}


SAME_BYTES = _same_bytes()


@dataclass(frozen=True)
class Picture:
    """How the frames of one video are encoded; the same for all its chunks.

    ``rate``: frames per second, a hint to the encoder. ``steady``: as `ClipInfo.steady`.
    ``crf``, ``preset``: of x264. ``pixel_aspect``: None where it is not told.
    """

    width: int
    height: int
    colour: Colour
    pixel_aspect: Fraction | None
    rate: Fraction
    steady: bool
    crf: int
    preset: str

    @classmethod
    def of(
        cls,
        info: ClipInfo,
        *,
        width: int | None = None,
        height: int | None = None,
        crf: int = 18,
        preset: str = "medium",
    ) -> "Picture":
        """A video with a clip's colours and rate, at its size or another."""
        size = (info.width if width is None else width, info.height if height is None else height)
        same = size == (info.width, info.height)
        return cls(
            *size,
            colour=info.colour.limited(),
            pixel_aspect=info.pixel_aspect if same else None,
            rate=_encoders_rate(info.frame_rate),
            steady=info.steady,
            crf=crf,
            preset=preset,
        )


class ChunkWriter(AbstractContextManager["ChunkWriter"]):
    """Encodes frames one by one; at most the encoder's look-ahead is held in memory.

    The file starts with a frame that needs no other, and none refers to another file. It follows
    from the frames and ``picture`` alone: one thread. Frames of another size are resized. yuv420p
    where both sides are even, else yuv444p, which keeps an odd size.

    A context manager: closes the file, or, when left by an exception, abandons it (an incomplete
    file stays for the caller to delete). Raises FrescodError where the file cannot be written.
    """

    def __init__(self, path: Path, picture: Picture) -> None:
        self.path = path
        self.picture = picture
        self.written = 0
        pixel_format = "yuv444p" if picture.width % 2 or picture.height % 2 else "yuv420p"
        self._from_rgb = FromRGB(picture.colour, pixel_format)
        with writing(path):
            # A file of ours: one that PyAV has opened stays open where its header does not fit on
            # the disk, and a deleted file that is open goes on taking space.
            self._file = path.open("wb")
        options = {"video_track_timescale": str(1 / _TICK)}
        self._container = av.open(self._file, "w", format="mp4", options=options)
        try:
            self._stream = self._container.add_stream("libx264", rate=picture.rate)
            context = self._stream.codec_context
            context.width, context.height = picture.width, picture.height
            context.pix_fmt = pixel_format
            context.time_base = 1 / picture.rate
            context.framerate = picture.rate
            context.thread_count = 1
            context.color_range = 1
            context.colorspace = picture.colour.matrix
            context.color_primaries = picture.colour.primaries
            context.color_trc = picture.colour.transfer
            if picture.pixel_aspect is not None:
                context.sample_aspect_ratio = picture.pixel_aspect
            given = {"crf": str(picture.crf), "preset": picture.preset}
            context.options = given | SAME_BYTES
            if not picture.steady:
                # With B-frames the file's length follows from decoding times, which for uneven
                # frames cannot say when the last one ends.
                context.options |= {"bf": "0"}
            with writing(path):
                self._container.start_encoding()
        except BaseException:
            self.abandon()
            raise

    def write(self, frame_HWC: NDArray[np.uint8]) -> None:
        """Encode the next frame: uint8 (h, w, 3) RGB of any size."""
        frame = self._from_rgb(resized(frame_HWC, self.picture.width, self.picture.height))
        frame.pts = self.written
        frame.time_base = 1 / self.picture.rate
        self.written += 1
        self._mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file."""
        try:
            self._mux(self._stream.encode(None))
            with writing(self.path):
                self._container.close()
                self._file.close()
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Let go of the file as it is."""
        for part in (self._container, self._file):
            with suppress(av.error.FFmpegError, OSError, ValueError):
                part.close()

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.time_base = _TICK
            packet.duration = 1
            with writing(self.path):
                self._container.mux(packet)


def _encoders_rate(rate: Fraction) -> Fraction:
    """The frame rate, or the nearest to it that the encoder can be told.

    Uneven times make averages of long fractions. It is only a hint: the frames' times decide.
    """
    near = rate.limit_denominator(max(1, MAX_INTEGER // math.ceil(rate)))
    return max(near, Fraction(1, MAX_INTEGER))


def resized(frame_HWC: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """A uint8 (h, w, 3) frame at another size: area averaging where it shrinks, else Lanczos."""
    h, w = frame_HWC.shape[:2]
    if (w, h) == (width, height):
        return frame_HWC
    shrinks = width * height < w * h
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
    resized_HWC: NDArray[np.uint8] = cv2.resize(frame_HWC, (width, height), interpolation=method)
    return resized_HWC
