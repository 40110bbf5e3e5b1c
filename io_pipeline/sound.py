"""The sound tracks of one file, copied into another while its frames are written."""

from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from fresco_core.errors import ClipError
from io_pipeline.container import open_container

# What an mp4 can hold as it is. Everything else (PCM of .avi and .mov above all, which browsers do
# not play from mp4) is encoded as AAC.
_COPIED = frozenset(
    [
        "aac",
        "ac3",
        "alac",
        "dca",
        "dts",
        "eac3",
        "flac",
        "libopus",
        "libvorbis",
        "mp2",
        "mp2float",
        "mp3",
        "mp3float",
        "opus",
        "vorbis",
    ]
)
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_AAC_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}
_AAC_BITS_PER_CHANNEL = 128_000


def sample_rates(source: Path) -> list[int]:
    """Samples per second of every sound track of a file."""
    with _open(source) as container:
        return [stream.codec_context.sample_rate for stream in container.streams.audio]


class Sound:
    """All sound tracks of ``source`` as streams of ``container``, which is not started yet.

    Packets are copied as they are; a track that mp4 cannot carry is encoded as AAC, which
    ``warnings`` tells. ``shift`` seconds are added to all times. One packet is held at a time.
    """

    def __init__(self, source: Path, container: Any, *, shift: Fraction) -> None:
        self.warnings: list[str] = []
        self._container = container
        self._shift = shift
        self._source = _open(source)
        self._tracks: dict[int, _Copied | _Encoded] = {}
        for number, stream in enumerate(self._source.streams.audio, 1):
            name = stream.codec_context.name
            if name in _COPIED:
                self._tracks[stream.index] = _Copied(stream, container)
            else:
                self.warnings.append(f"sound track {number} ({name}) was encoded as AAC for mp4")
                self._tracks[stream.index] = _Encoded(stream, container, number, self.warnings)
        self._packets = self._demux()
        self._next: Any = None

    def copy_until(self, seconds: Fraction) -> None:
        """Copy what starts before a time of the output."""
        while True:
            if self._next is None:
                self._next = next(self._packets, None)
            if self._next is None:
                return
            if self._next.dts * self._next.time_base + self._shift >= seconds:
                return
            packet, self._next = self._next, None
            self._pass(packet)

    def copy_rest(self) -> None:
        """Copy everything that is left."""
        if self._next is not None:
            packet, self._next = self._next, None
            self._pass(packet)
        for packet in self._packets:
            self._pass(packet)
        for track in self._tracks.values():
            self._container.mux(track.rest())

    def close(self) -> None:
        """Release the source."""
        self._packets.close()
        self._source.close()

    def _pass(self, packet: Any) -> None:
        ticks = round(self._shift / packet.time_base)
        packet.pts = packet.dts if packet.pts is None else packet.pts
        packet.pts += ticks
        packet.dts += ticks
        self._container.mux(self._tracks[packet.stream.index].packets(packet))

    def _demux(self) -> Generator[Any, None, None]:
        streams = [self._source.streams[index] for index in self._tracks]
        if not streams:
            return
        try:
            for packet in self._source.demux(streams):
                # A cut file may end in a partial packet; that it is cut is told with the picture.
                if packet.size and packet.dts is not None and not packet.is_corrupt:
                    yield packet
        except av.error.FFmpegError as error:
            self.warnings.append(
                f"the sound ends early: the rest cannot be read ({error.strerror})"
            )


class _Copied:
    """A track whose packets are passed on as they are."""

    def __init__(self, source: Any, container: Any) -> None:
        self._stream = container.add_stream_from_template(source)
        self._stream.metadata.update(source.metadata)

    def packets(self, packet: Any) -> list[Any]:
        packet.stream = self._stream
        return [packet]

    def rest(self) -> list[Any]:
        return []


class _Encoded:
    """A track that is decoded and encoded as AAC at the same times."""

    def __init__(self, source: Any, container: Any, number: int, warnings: list[str]) -> None:
        self._damage = f"sound track {number}: damaged parts were left out"
        self._warnings = warnings
        rate = source.codec_context.sample_rate
        rate = next((known for known in _AAC_RATES if known <= rate), _AAC_RATES[-1])
        self._stream = container.add_stream("aac", rate=rate)
        self._stream.metadata.update(source.metadata)
        channels = source.codec_context.layout.nb_channels
        context = self._stream.codec_context
        # By the number of channels: PCM in AVI does not say which is where.
        context.layout = _AAC_LAYOUTS.get(channels, "stereo")
        context.bit_rate = _AAC_BITS_PER_CHANNEL * context.layout.nb_channels

    def packets(self, packet: Any) -> list[Any]:
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            if self._damage not in self._warnings:
                self._warnings.append(self._damage)
            return []
        return [out for frame in frames for out in self._stream.encode(frame)]

    def rest(self) -> list[Any]:
        packets: list[Any] = self._stream.encode(None)
        return packets


def _open(source: Path) -> Any:
    try:
        return open_container(source)
    except (av.error.FFmpegError, OSError) as error:
        raise ClipError(
            f"{source}: its sound cannot be read ({error.strerror}); copy the file again"
        ) from error
