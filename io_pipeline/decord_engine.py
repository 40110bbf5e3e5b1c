"""decord as the decoder: on request, of the clips it is right about, and where PyAV hangs.

It is fast, but rounds colours down and keeps some kilobytes of every frame it has read; that is why
it is not the default.

Legend: H, W = height and width of a frame, C = 3 (red, green, blue).
"""

import importlib.util
from collections.abc import Callable, Generator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fresco_core.errors import ClipError
from io_pipeline.clip_info import ClipInfo
from io_pipeline.clip_source import ClipSource, average_rate, colour_tags
from io_pipeline.frame_times import end_and_rate, rising

# Mean absolute difference of the first frame, in grey levels, up to which two decoders agree:
# decord's rounding makes one or two, a wrong colour matrix five and more.
_SAME_PICTURE = 3.0
# Seconds that a time from decord may be off: it tells them as float32.
_SAME_TIME = 0.002
_DEFAULT_RATE = Fraction(25)
# Seconds beyond which a time is no time.
_FOR_EVER = 1e9
_ALONE = (
    "PyAV cannot read it: decoded with decord alone, whose colours are a level or two darker and "
    "which tells of no damage"
)


def installed() -> bool:
    """Whether decord can be imported; it is not loaded."""
    return importlib.util.find_spec("decord") is not None


def agrees(info: ClipInfo, first_HWC: NDArray[np.uint8]) -> bool:
    """Whether decord delivers what a complete pass with PyAV found.

    Its number of frames, their times and its first picture must be PyAV's. It is not even asked
    about a clip with warnings: it fails on cut files, and tells of no damage.
    """
    if info.warnings or not installed():
        return False
    try:
        reader = _open(info.path, threads=1)
        if len(reader) != info.frame_count:
            return False
        starts = reader.get_frame_timestamp(range(info.frame_count))[:, 0]
        times = np.array(info.times) * float(info.time_base)
        shift = float(starts[0] - times[0])
        if np.abs(starts - times - shift).max() > _SAME_TIME:
            return False
        frame_HWC = reader.next().asnumpy()
    except Exception:  # Whatever it raises, it is not to be trusted with this clip.
        return False
    if frame_HWC.shape != first_HWC.shape:
        return False
    return float(np.abs(frame_HWC.astype(np.int16) - first_HWC).mean()) <= _SAME_PICTURE


def pictures(
    path: Path, threads: int, frame_count: int | None = None
) -> Generator[Callable[[], NDArray[np.uint8]], None, None]:
    """Every frame in order; called, it is uint8 (H, W, 3) RGB, upright.

    Raises ClipError where decord fails, or finds other than ``frame_count`` frames.
    """
    try:
        reader = _open(path, threads)
        if frame_count not in (None, len(reader)):
            raise ValueError(f"it finds {len(reader)} frames, not {frame_count}")
        for _ in range(len(reader)):
            yield reader.next().asnumpy
    except Exception as error:
        raise _failed(path, error) from error


def scan(
    path: Path,
    *,
    max_pixels: int,
    threads: int,
    on_frame: Callable[[int, NDArray[np.uint8]], None] | None = None,
) -> ClipInfo:
    """What `scan_clip` tells, by decord alone: for a clip that PyAV hangs or dies on.

    Frames, their number, size and times are decord's. PyAV reads the container's header, for what
    decord does not know (sound tracks, colour tags, pixel aspect, `max_pixels`), and decodes
    nothing. How decord turned the pictures upright is not known: ``rotation`` stays 0.

    Raises ClipError where the header is refused, the file is cut short (decord repeats frames
    there), or decord fails.
    """
    if not installed():
        raise ClipError(f"{path}: PyAV cannot read it and decord is not installed; re-encode it")
    with ClipSource(path, max_pixels=max_pixels, threads=threads) as header:
        if header.cut:
            raise ClipError(f"{path}: cut short, and PyAV cannot read it; copy it again")
        seconds_T, shape = _times(path, threads), None
        for number, picture in enumerate(pictures(path, threads)):
            frame_HWC = picture()
            shape = shape or frame_HWC.shape
            # Where a picture is one pixel wide, it delivers channels that are none.
            if frame_HWC.shape != shape or shape[2] != 3:
                raise _failed(path, ValueError(f"frame {number} is {frame_HWC.shape}"))
            if on_frame is not None:
                on_frame(number, frame_HWC)
        if shape is None:
            raise ClipError(f"{path}: no frame can be decoded; copy it again or re-encode it")
        return _info(header, seconds_T, shape[0], shape[1])


def _times(path: Path, threads: int) -> NDArray[np.float64]:
    """When every frame begins, in seconds (float64, (T,))."""
    try:
        reader = _open(path, threads)
        if not len(reader):
            return np.empty(0)
        return np.asarray(reader.get_frame_timestamp(range(len(reader))), np.float64)[:, 0]
    except Exception as error:
        raise _failed(path, error) from error


def _info(header: ClipSource, seconds_T: NDArray[np.float64], height: int, width: int) -> ClipInfo:
    stream, context = header.stream, header.stream.codec_context
    base, stated, count = Fraction(stream.time_base), average_rate(stream), len(seconds_T)
    step = 1 / ((stated or _DEFAULT_RATE) * base)
    first = stream.start_time or 0
    warnings = [_ALONE]
    if stream.frames and stream.frames != count:
        warnings.append(f"{count} frames are shown of the {stream.frames} its container lists")
    if np.abs(seconds_T).max() < _FOR_EVER:
        ticks = [first + round(time) for time in (seconds_T - seconds_T[0]) / float(base)]
    else:  # as it says of AVI
        warnings.append("frames without times: placed at the container's frame rate")
        ticks = [first + round(number * step) for number in range(count)]
    times = rising(ticks)
    if times != tuple(ticks):
        warnings.append("its frame times do not rise: they were put in order")
    last_duration = times[-1] - times[-2] if count > 1 else max(1, round(step))
    end, rate = end_and_rate(times, last_duration, base, stated)
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    turned = (width, height) != (context.width, context.height)
    return ClipInfo(
        path=header.path,
        width=width,
        height=height,
        frame_count=count,
        times=times,
        end=end,
        time_base=base,
        frame_rate=rate,
        rotation=0,
        mirrored=False,
        pixel_aspect=1 / aspect if turned else aspect,
        colour=colour_tags(context, context),
        sound_tracks=header.sound_tracks,
        codec=context.name,
        pixel_format=context.pix_fmt or "unknown",
        engine="decord",
        warnings=tuple(warnings),
    )


def _failed(path: Path, error: Exception) -> ClipError:
    line = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
    return ClipError(
        f"{path}: decord cannot read it ({line}); re-encode it or set clips.decoder to pyav"
    )


def _open(path: Path, threads: int) -> Any:
    # Imported here: loading it costs time and memory that clips for PyAV need not pay.
    import decord

    return decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0), num_threads=threads)
