"""A clip opened for one pass of decoding in presentation order."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from fresco_core.errors import ClipError
from io_pipeline.colour import Colour
from io_pipeline.container import open_container

# Containers a clip may come in. A list of its own keeps text files from being read as playlists.
_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf"
_COPY_AGAIN = "copy it again or re-encode it"


class ClipSource(AbstractContextManager["ClipSource"]):
    """One sequential pass over a clip's decoded frames, with O(1) frames in memory.

    ``threads`` is the fixed number of decoding threads: several clips are decoded side by side.
    Raises ClipError for whatever is no clip, and from :meth:`frames` for a damaged one.
    """

    def __init__(self, path: Path, *, max_pixels: int, threads: int) -> None:
        self.path = path
        # Whether the file ends early; packets the container wants decoded but not shown; how long
        # the last frame is shown, in ticks (0: not said). The latter two fill as frames are read.
        self.cut = False
        self.discarded = 0
        self.last_duration = 0
        _refuse_no_file(path)
        try:
            self._container = open_container(path, {"format_whitelist": _FORMATS})
        except (av.error.FFmpegError, OSError, ValueError) as error:
            problem = f"not a video that can be read ({_reason(error)}); {_COPY_AGAIN}"
            if _is_cut(path, "mp4"):
                problem = "cut short: the index at its end is missing; copy it again"
            raise ClipError(f"{path}: {problem}") from error
        try:
            self.stream = self._video_stream()
            self._refuse_size(max_pixels)
            self.cut = _is_cut(path, self._container.format.name)
        except BaseException:
            self._container.close()
            raise
        context = self.stream.codec_context
        context.thread_type = "AUTO"
        context.thread_count = threads
        # Header and pictures can disagree: the limit holds for what is decoded as well.
        context.options = {"max_pixels": str(max_pixels)}

    @property
    def sound_tracks(self) -> int:
        """Number of sound tracks."""
        return len(self._container.streams.audio)

    @property
    def seconds(self) -> Fraction:
        """How long the clip is by its header; 0 where that does not say."""
        return Fraction(self._container.duration or 0, 1_000_000)

    def frames(self) -> Iterator[av.VideoFrame]:
        """Every frame, in presentation order. Stops quietly where a cut file ends.

        Raises ClipError at the first damaged frame: what follows shows its damage.
        """
        damage: Exception | None = None
        count = 0
        latest: int | None = None
        try:
            for packet in self._container.demux(self.stream):
                if packet.size and damage is not None:
                    raise self._damaged(count, damage)
                if packet.size and packet.is_corrupt:
                    damage = ValueError("packet cut short")
                    continue
                self.discarded += bool(packet.size and packet.is_discard)
                if packet.pts is not None and (latest is None or packet.pts > latest):
                    latest, self.last_duration = packet.pts, packet.duration or 0
                try:
                    frames = packet.decode()
                except av.error.EOFError:
                    break
                except (av.error.FFmpegError, ValueError) as error:
                    damage = error
                    continue
                for frame in frames:
                    if frame.is_corrupt:
                        raise self._damaged(count, ValueError("picture data damaged"))
                    yield frame
                    count += 1
        except (av.error.FFmpegError, OSError) as error:
            raise self._damaged(count, error) from error
        # Only the very end of a cut file may be damaged: that is the cut.
        if damage is not None and not self.cut:
            raise self._damaged(count, damage)

    def close(self) -> None:
        """Release the decoder and the file."""
        # Freeing a decoder waits for its threads while it holds the interpreter, and a thread that
        # has something to log waits for the interpreter. Flushing waits without holding it.
        self.stream.codec_context.flush_buffers()
        self._container.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _video_stream(self) -> Any:
        for stream in self._container.streams.video:
            # A cover picture is a video stream of one frame.
            if not _is_cover(stream):
                return stream
        raise ClipError(f"{self.path}: has no video stream; give a video file")

    def _refuse_size(self, max_pixels: int) -> None:
        if self.stream.codec_context is None:
            raise ClipError(f"{self.path}: its codec is not known here; re-encode it as H.264")
        width, height = self.stream.codec_context.width, self.stream.codec_context.height
        if not width or not height:
            # What FFmpeg makes of a header that says 16384x16384.
            raise ClipError(
                f"{self.path}: its header states no picture size, or far too large a one; "
                "scale the clip down or re-encode it"
            )
        if width * height > max_pixels:
            raise ClipError(
                f"{self.path}: {width}x{height} is more than the {max_pixels} pixels allowed "
                "(limits.max_pixels); scale the clip down or raise the limit"
            )

    def _damaged(self, frame_number: int, error: Exception) -> ClipError:
        return ClipError(
            f"{self.path}: damaged near frame {frame_number} ({_reason(error)}); {_COPY_AGAIN}"
        )


def _refuse_no_file(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ClipError(
            f"{path}: cannot be read ({error.strerror}); check the name and the rights"
        ) from error
    if not path.is_file():
        raise ClipError(f"{path}: not a file; give a video file")
    if size == 0:
        raise ClipError(f"{path}: the file is empty; {_COPY_AGAIN}")


def _is_cover(stream: Any) -> bool:
    disposition = stream.disposition if hasattr(stream, "disposition") else 0
    cover = getattr(type(disposition), "attached_pic", None)
    return bool(disposition & cover) if cover is not None else False


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def orientation(frame: av.VideoFrame) -> tuple[int, bool, bool]:
    """How a frame's display matrix turns it: (degrees clockwise, mirrored first, exact).

    Degrees are rounded to quarter turns; ``exact`` is False where that changed them.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 0, False, True
    # 16.16 fixed point, rows (a b u), (c d v), (x y w); a point goes to (ax + cy, bx + dy).
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].astype(float).tolist()
    degrees = math.degrees(math.atan2(-c, d))
    quarter = round(degrees / 90)
    return quarter * 90 % 360, a * d - b * c < 0, abs(degrees - quarter * 90) < 0.5


def upright(frame_HWC: NDArray[np.uint8], rotation: int, mirrored: bool) -> NDArray[np.uint8]:
    """A stored frame as it is displayed: mirrored left to right, then turned clockwise."""
    if mirrored:
        frame_HWC = frame_HWC[:, ::-1]
    return np.ascontiguousarray(np.rot90(frame_HWC, -rotation // 90))


def average_rate(stream: Any) -> Fraction | None:
    """The frame rate the container states or implies, if any."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate:
            return Fraction(rate)
    return None


def colour_tags(said_by: Any, context: Any) -> Colour:
    """The colour tags of a clip, the matrix settled.

    ``said_by`` is a decoded frame, or the codec context itself where nothing is to be decoded:
    the same but for codecs that state their colours in the pictures alone.
    """
    pixels = said_by.format
    known_full = pixels is not None and (pixels.is_rgb or pixels.name.startswith("yuvj"))
    tags = Colour(
        int(said_by.colorspace),
        int(context.color_primaries),
        int(context.color_trc),
        bool(known_full or said_by.color_range == 2),
    )
    return tags.assumed(said_by.width, said_by.height)


def _is_cut(path: Path, format_name: str) -> bool:
    """Whether the file ends before its container says it does."""
    size = path.stat().st_size
    with suppress(OSError, ValueError), path.open("rb") as file:
        head = file.read(64)
        if "mp4" in format_name:
            return head[4:8] in (b"ftyp", b"moov", b"wide") and _mp4_end(file, size) > size
        if "avi" in format_name:
            return 8 + int.from_bytes(head[4:8], "little") > size
        if "matroska" in format_name:
            return _matroska_end(head) > size
    return False


def _mp4_end(file: Any, size: int) -> int:
    """Where the last top-level box ends, in bytes (ISO/IEC 14496-12: size, type, size64)."""
    offset = 0
    while offset + 8 <= size:
        file.seek(offset)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:
            return size
        if length < 8:
            raise ValueError("not a box")
        offset += length
    return offset


def _matroska_end(head: bytes) -> int:
    """Where the segment ends, in bytes; 0 where its length is left open (EBML, RFC 8794)."""

    def length(offset: int) -> tuple[int, int]:
        width = 9 - head[offset].bit_length()
        value = int.from_bytes(head[offset : offset + width], "big") & ((1 << 7 * width) - 1)
        return (0 if value == (1 << 7 * width) - 1 else value), offset + width

    header, offset = length(4)
    offset += header
    if head[offset : offset + 4] != b"\x18\x53\x80\x67":
        return 0
    segment, offset = length(offset + 4)
    return offset + segment if segment else 0
