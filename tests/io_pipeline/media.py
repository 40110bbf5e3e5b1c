"""Clips made for tests."""

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from io_pipeline.chunk import SAME_BYTES
from io_pipeline.video import ClipInfo, ClipReader, ClipWriter, Engine, scan_clip

TONES = (440.0, 660.0, 880.0)
NTSC = Fraction(30000, 1001)
UNEVEN = [0, 100, 150, 900, 1000, 1500, 1525]


def picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """A smooth moving picture, uint8 (H, W, 3), different for every frame number."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    t = number * 0.35
    red = 128 + 80 * np.sin(x / 23 + t)
    green = 128 + 80 * np.sin(y / 19 - t * 0.7)
    blue = 128 + 80 * np.sin((x + y) / 37 + 1.3 * t)
    return np.stack([red, green, blue], -1).round().astype(np.uint8)


def patches(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Four flat, strong colours, uint8 (H, W, 3), the same for every frame number."""
    picture_HWC = np.empty((height, width, 3), np.uint8)
    picture_HWC[: height // 2, : width // 2] = 200, 40, 40
    picture_HWC[: height // 2, width // 2 :] = 40, 180, 60
    picture_HWC[height // 2 :, : width // 2] = 50, 60, 210
    picture_HWC[height // 2 :, width // 2 :] = 128, 128, 128
    return picture_HWC


def make_clip(
    path: Path,
    *,
    frames: int = 7,
    width: int = 64,
    height: int = 64,
    rate: Fraction | int = 24,
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rotation: int = 0,
    sound: int = 0,
    sound_codec: str = "aac",
    sound_offset: float = 0.0,
    pixel_format: str | None = None,
    codec: str = "libx264",
    matrix: int = 2,
    full_range: bool = False,
    b_frames: int = 2,
    paint: Callable[[int, int, int], NDArray[np.uint8]] = picture,
) -> Path:
    """Encode ``frames`` pictures; the container follows from the name.

    ``times`` are presentation times in ``time_base`` (default: frame numbers at ``rate``);
    ``rotation`` is a flag in degrees clockwise (mp4 and mov); ``sound`` is the number of tracks,
    each a sine of its own, as long as the picture, starting ``sound_offset`` seconds later;
    ``matrix`` is an H.273 code point (1: BT.709, 6: BT.601, 2: untagged); ``paint(number, width,
    height)`` draws a frame.
    """
    rate = Fraction(rate)
    base = time_base or 1 / rate
    shown = list(range(frames)) if times is None else list(times)
    if pixel_format is None:
        pixel_format = "yuv420p" if width % 2 == 0 and height % 2 == 0 else "yuv444p"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        context = stream.codec_context
        context.time_base = base
        context.thread_count = 1
        context.colorspace = matrix
        context.color_range = 2 if full_range else 1
        if codec == "libx264":
            given = {"preset": "veryfast", "crf": "10", "bf": str(b_frames)}
            context.options = given | SAME_BYTES
        elif codec == "mpeg4":
            context.bit_rate = 4_000_000
        tracks = [_track(container, sound_codec) for _ in range(sound)]
        seconds = float((shown[-1] - shown[0]) * base + 1 / rate) if shown else 0.0
        for number, time in enumerate(shown):
            frame = _frame(paint(number, width, height), pixel_format, matrix, full_range)
            frame.pts, frame.time_base = time, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for tone, track in zip(TONES, tracks, strict=False):
            for frame in _samples(tone, seconds, sound_offset):
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
    if rotation:
        set_rotation(path, rotation)
    return path


def set_rotation(path: Path, degrees: int, *, mirrored: bool = False) -> None:
    """Write a clockwise rotation flag into every video track header of an mp4."""
    data = bytearray(path.read_bytes())
    a, b = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    x = -1 if mirrored else 1
    matrix = struct.pack(">9i", x * a << 16, x * b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    start = data.find(b"tkhd")
    while start >= 0:
        size = int.from_bytes(data[start - 4 : start], "big")
        # The box ends in matrix, width, height; sound tracks have no width.
        end = start - 4 + size
        if any(data[end - 8 : end]):
            data[end - 44 : end - 8] = matrix
        start = data.find(b"tkhd", end)
    path.write_bytes(data)


def flip_bytes(path: Path, count: int = 200, seed: int = 0) -> Path:
    """Damage picture data in place: bytes after the first tenth and before the last fifth."""
    data = bytearray(path.read_bytes())
    generator = np.random.default_rng(seed)
    for offset in generator.integers(len(data) // 10, len(data) * 4 // 5, count):
        data[offset] ^= 0xFF
    path.write_bytes(data)
    return path


def cut(path: Path, share: float = 0.5) -> Path:
    """Keep only the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@dataclass(frozen=True)
class Probe:
    """What a file holds, told by PyAV alone."""

    width: int
    height: int
    times: list[Fraction]
    rate: Fraction
    pixel_format: str
    codec: str
    matrix: int
    full_range: bool
    sound: list[list[tuple[Fraction, bytes]]]


def probe(path: Path) -> Probe:
    """Decode every frame and read every sound packet of a file."""
    with av.open(str(path)) as container:
        stream: Any = container.streams.video[0]
        base = stream.time_base
        decoded = [
            (frame.pts * base, int(frame.colorspace), int(frame.color_range))
            for frame in container.decode(stream)
        ]
        context = stream.codec_context
        result = {
            "width": context.width,
            "height": context.height,
            "rate": Fraction(stream.average_rate),
            "pixel_format": context.pix_fmt,
            "codec": context.name,
        }
    with av.open(str(path)) as container:
        sound: dict[int, list[tuple[Fraction, bytes]]]
        sound = {stream.index: [] for stream in container.streams.audio}
        for packet in container.demux():
            if packet.size and packet.stream.index in sound:
                sound[packet.stream.index].append((packet.pts * packet.time_base, bytes(packet)))
    return Probe(
        times=[time for time, _, _ in decoded],
        matrix=decoded[0][1],
        full_range=decoded[0][2] == 2,
        sound=list(sound.values()),
        **result,
    )


def decode(path: Path) -> list[NDArray[np.uint8]]:
    """Every stored frame as RGB, by PyAV's own conversion."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def rewrite(path: Path, **arguments: Any) -> tuple[ClipInfo, ClipWriter, Path]:
    """Read a clip and write it again, untouched."""
    info = scan_clip(path)
    result = path.with_name(path.stem + "-again.mp4")
    with ClipReader(info) as reader, ClipWriter(result, info, **arguments) as writer:
        for frame in reader:
            writer.write(frame)
    return info, writer, result


def read(path: Path, engine: Engine = "auto") -> list[NDArray[np.uint8]]:
    """Every frame of a clip."""
    with ClipReader(scan_clip(path, engine=engine)) as reader:
        return list(reader)


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(one.astype(np.int16) - other).mean())


def patch_error(frame: NDArray[np.uint8]) -> float:
    """Mean difference from the four colours of :func:`patches`, away from their borders."""
    height, width = frame.shape[:2]
    error = np.abs(frame.astype(np.int16) - patches(0, width, height)).astype(float)
    rows = np.r_[8 : height // 2 - 8, height // 2 + 8 : height - 8]
    columns = np.r_[8 : width // 2 - 8, width // 2 + 8 : width - 8]
    return float(error[np.ix_(rows, columns)].mean())


def _frame(
    picture_HWC: NDArray[np.uint8], pixel_format: str, matrix: int, full_range: bool
) -> av.VideoFrame:
    """By the formulas of BT.601 and BT.709 in numpy, to owe nothing to the code under test."""
    if not pixel_format.startswith("yuv"):
        return av.VideoFrame.from_ndarray(picture_HWC, format="rgb24").reformat(format=pixel_format)
    red, green, blue = np.moveaxis(picture_HWC.astype(np.float64) / 255, -1, 0)
    k_red, k_blue = (0.2126, 0.0722) if matrix == 1 else (0.299, 0.114)
    luma = k_red * red + (1 - k_red - k_blue) * green + k_blue * blue
    chroma = (blue - luma) / (2 - 2 * k_blue), (red - luma) / (2 - 2 * k_red)
    full_range = full_range or pixel_format.startswith("yuvj")
    planes = [luma * (255 if full_range else 219) + (0 if full_range else 16)]
    planes += [plane * (255 if full_range else 224) + 128 for plane in chroma]
    height, width = luma.shape
    frame = av.VideoFrame(width, height, pixel_format)
    deep = "10" in pixel_format
    for plane, values in zip(frame.planes, planes, strict=True):
        if plane.height < height or plane.width < width:
            down, across = math.ceil(height / plane.height), math.ceil(width / plane.width)
            values = np.pad(values, ((0, -height % down), (0, -width % across)), mode="edge")
            values = values.reshape(plane.height, down, plane.width, across).mean((1, 3))
        scaled = np.clip(np.round(values * (4 if deep else 1)), 0, 1023 if deep else 255)
        typed = scaled.astype("<u2" if deep else np.uint8)
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        data = typed.view(np.uint8).reshape(plane.height, -1)
        rows[:, : data.shape[1]] = data
        plane.update(rows.tobytes())
    return frame


def _track(container: Any, codec: str) -> Any:
    stream = container.add_stream(codec, rate=48000)
    stream.codec_context.layout = "stereo"
    return stream


def _samples(tone: float, seconds: float, offset: float) -> list[av.AudioFrame]:
    count = max(1, round(seconds * 48000))
    wave = 0.3 * np.sin(2 * np.pi * tone * np.arange(count) / 48000)
    samples = (np.stack([wave, wave]) * 32767).astype(np.int16)
    frames = []
    for start in range(0, count, 1024):
        part = np.ascontiguousarray(samples[:, start : start + 1024].T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(part, format="s16", layout="stereo")
        frame.sample_rate = 48000
        frame.pts = start + round(offset * 48000)
        frame.time_base = Fraction(1, 48000)
        frames.append(frame)
    return frames
