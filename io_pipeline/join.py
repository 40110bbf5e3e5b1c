"""Join encoded chunks into one mp4 with another clip's times, rate and sound."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from fresco_core.errors import FrescodError
from io_pipeline.chunk import MAX_INTEGER
from io_pipeline.clip_info import ClipInfo
from io_pipeline.sound import Sound, sample_rates
from io_pipeline.writing import writing

_HEADER = 4096  # bytes, more than what an mp4 begins with


def join(
    path: Path,
    chunks: Sequence[Path],
    info: ClipInfo,
    *,
    sound_from: Path | None = None,
    on_packet: Callable[[], None] = lambda: None,
) -> list[str]:
    """Write the frames of ``chunks``, in this order, without encoding them again.

    The mp4 gets the presentation times and the average rate of ``info`` and, where ``sound_from``
    names a file, all its sound tracks, copied packet by packet and interleaved. One packet is held
    in memory at a time. ``on_packet`` is called after each that is read: twice for every frame,
    which are all looked through before the first is written. Returns sentences for the user.

    Raises:
        FrescodError: the file cannot be written, or a chunk cannot be read or does not fit to the
            others.
        ClipError: the sound cannot be read.
        ValueError: the chunks do not hold the clip's number of frames.
    """
    order = _decoding_order(chunks, on_packet)
    if len(order) != info.frame_count:
        raise ValueError(f"{path}: {len(order)} of {info.frame_count} frames were written")
    timescale = _timescale(info)
    movie_timescale = _movie_timescale(timescale, sound_from)
    with writing(path):
        # PyAV lets go of no file whose header does not fit on the disk; deleted, such a file would
        # go on taking space.
        path.write_bytes(bytes(_HEADER))
        container = av.open(
            str(path.absolute()),
            "w",
            format="mp4",
            options={
                "movflags": "+faststart",
                "video_track_timescale": str(timescale),
                # The times at which sound and picture start are written in this unit.
                "movie_timescale": str(movie_timescale),
            },
        )
    with ExitStack() as stack:
        stack.callback(_let_go, container)
        with _open(chunks[0]) as first:
            # Opaque: packets are passed on, and no encoder is to write a header of its own.
            stream = container.add_stream_from_template(first.streams.video[0], opaque=True)
        sound = None
        if sound_from is not None:
            sound = Sound(sound_from, container, shift=_shift(info))
            stack.callback(sound.close)
        with writing(path):
            container.start_encoding()
        for packet in _timed(_packets(chunks), order, *_times(info, timescale)):
            packet.stream = stream
            packet.time_base = Fraction(1, timescale)
            starts = packet.dts * packet.time_base
            with writing(path):
                container.mux(packet)
                if sound is not None:
                    sound.copy_until(starts)
            on_packet()
        with writing(path):
            if sound is not None:
                sound.copy_rest()
            container.close()
    return [] if sound is None else sound.warnings


def _timed(
    packets: Iterator[Any], order: Sequence[int], times: Sequence[int], end: int
) -> Iterator[Any]:
    """Packets with the times of the frames that they hold."""
    decoded_at = _decoding_times(times, order)
    ends = [*times[1:], end]
    for position, packet in enumerate(packets):
        shown = order[position]
        packet.pts, packet.dts = times[shown], decoded_at[position]
        packet.duration = ends[shown] - times[shown]
        if position == len(order) - 1:
            # The track's length is told by decoding times and by how long the last one lasts.
            covered = decoded_at[position] - decoded_at[0]
            packet.duration = max(1, end - times[0] - covered)
        yield packet


def _decoding_order(chunks: Sequence[Path], on_packet: Callable[[], None]) -> list[int]:
    """Every packet's frame number. Raises FrescodError for chunks that do not fit together."""
    order: list[int] = []
    header = None
    for chunk in chunks:
        with _open(chunk) as container:
            found = bytes(container.streams.video[0].codec_context.extradata or b"")
            shown = []
            for packet in _demux(container, chunk):
                shown.append(packet.pts)
                on_packet()
        if header is None:
            header = found
        if found != header:
            raise FrescodError(
                f"{chunk}: was encoded otherwise than the windows before it; run again with --force"
            )
        place = {time: len(order) + rank for rank, time in enumerate(sorted(shown))}
        order += [place[time] for time in shown]
    return order


def _decoding_times(times: Sequence[int], order: Sequence[int]) -> list[int]:
    """A time for every packet that rises and is never later than the time it is shown at."""
    depth = max(position - shown for position, shown in enumerate(order))
    lead = times[depth] - times[0]
    return [time - lead for time in times[:depth]] + list(times[: len(times) - depth])


def _packets(chunks: Sequence[Path]) -> Iterator[Any]:
    """The packets of all chunks, in decoding order."""
    for chunk in chunks:
        with _open(chunk) as container:
            yield from _demux(container, chunk)


def _demux(container: Any, chunk: Path) -> Iterator[Any]:
    try:
        for packet in container.demux(video=0):
            if packet.size:
                yield packet
    except av.error.FFmpegError as error:
        raise _unreadable(chunk, error) from error


def _let_go(container: Any) -> None:
    with suppress(av.error.FFmpegError, OSError, ValueError):
        container.close()


def _open(chunk: Path) -> Any:
    try:
        return av.open(str(chunk.absolute()), format="mp4")
    except (av.error.FFmpegError, OSError) as error:
        raise _unreadable(chunk, error) from error


def _unreadable(chunk: Path, error: Any) -> FrescodError:
    return FrescodError(f"{chunk}: cannot be read ({error.strerror}); run again with --force")


def _timescale(info: ClipInfo) -> int:
    """Ticks per second in which all frame times and the clip's whole length are whole numbers."""
    timescale = math.lcm(info.time_base.denominator, info.frame_rate.numerator)
    return timescale if timescale <= MAX_INTEGER else info.time_base.denominator


def _movie_timescale(timescale: int, sound_from: Path | None) -> int:
    """Ticks per second that hold the start of the picture and of every sound track exactly."""
    for rate in sample_rates(sound_from) if sound_from is not None else ():
        common = math.lcm(timescale, rate)
        timescale = common if common <= MAX_INTEGER else timescale
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
