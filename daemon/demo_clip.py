"""The demo's clip: a drive through a simulator's flat-coloured world, drawn in code.

Shape legend: H x W pixels, 3 RGB channels. World coordinates are metres: x to the right, y up from
the road, z ahead of the camera.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from io_pipeline.chunk import SAME_BYTES

Colour = tuple[int, int, int]
Frame = NDArray[np.uint8]
Point = tuple[float, float, float]

SKY, GRASS, ROAD, LINE = (142, 190, 226), (112, 158, 82), (92, 94, 98), (235, 232, 214)
HILL, TRUNK, LEAVES, SHADE = (120, 150, 130), (106, 78, 56), (58, 116, 62), (44, 92, 52)
GLASS, TYRE, LAMP = (58, 70, 84), (32, 32, 34), (240, 214, 120)
CAR_COLOURS = ((196, 52, 44), (52, 84, 168), (222, 222, 224))

SPEED = 9.0  # metres a second
SAMPLE_RATE = 48_000
SUBPIXEL = 4  # cv2 draws at positions of 1/2**4 pixel, so motion is smooth


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along the road."""

    width: int
    height: int
    travelled: float

    def project(self, point: Point) -> tuple[float, float]:
        """Pixel position (x, y) of a world point that lies ahead of the camera."""
        x, y, z = point
        scale = 0.9 * self.width / max(z - self.travelled, 0.1)
        return self.width / 2 + scale * x, self.horizon + scale * (1.4 - y)

    @property
    def horizon(self) -> float:
        """Row of the horizon."""
        return 0.42 * self.height


def draw_frame(width: int, height: int, seconds: float) -> Frame:
    """The view (H,W,3) after so many seconds of driving; uint8 RGB."""
    camera = Camera(width, height, SPEED * seconds)
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = SKY
    _hills(canvas, camera)
    canvas[round(camera.horizon) :] = GRASS
    _ground(canvas, camera, -3.6, 3.6, 0.5, 400, ROAD)
    for edge in (-3.4, 3.25):
        _ground(canvas, camera, edge, edge + 0.15, 0.5, 200, LINE)
    for start in range(0, 200, 6):
        _ground(canvas, camera, -0.08, 0.08, start, start + 3, LINE)
    for distance, draw in sorted(_things(seconds), key=lambda thing: -thing[0]):
        if 2.0 < distance - camera.travelled < 120:
            draw(canvas, camera)
    return canvas


def _things(seconds: float) -> list[tuple[float, Any]]:
    """Trees and cars: (distance along the road, how to draw it)."""
    things: list[tuple[float, Any]] = []
    for index in range(24):
        side, z = (-1 if index % 2 else 1), 7.0 + 5.5 * index
        x, size = side * (5.2 + (index * 7 % 5) * 0.7), 1.0 + (index * 3 % 4) * 0.15
        things.append(
            (z, lambda canvas, camera, at=(x, 0.0, z), s=size: _tree(canvas, camera, at, s))
        )
    cars = (
        (1.7, 9.0 + 1.15 * SPEED * seconds, CAR_COLOURS[0], False),  # ahead, slowly pulling away
        (-1.7, 46.0 - 0.8 * SPEED * seconds, CAR_COLOURS[1], True),  # coming towards the camera
        (4.4, 30.0, CAR_COLOURS[2], False),  # parked
    )
    for x, z, colour, oncoming in cars:
        things.append(
            (
                z,
                lambda canvas, camera, at=(x, 0.0, z), c=colour, o=oncoming: _car(
                    canvas, camera, at, c, o
                ),
            )
        )
    return things


def _hills(canvas: Frame, camera: Camera) -> None:
    x = np.arange(canvas.shape[1] + 1)
    phase = 6.0 * x / canvas.shape[1]
    tops = camera.horizon - camera.height * (
        0.05 + 0.03 * np.sin(phase) + 0.02 * np.sin(2.3 * phase)
    )
    outline = [*zip(x, tops, strict=True), (canvas.shape[1], camera.horizon), (0, camera.horizon)]
    _fill(canvas, outline, HILL)


def _ground(
    canvas: Frame,
    camera: Camera,
    left: float,
    right: float,
    near: float,
    far: float,
    colour: Colour,
) -> None:
    near = max(near, camera.travelled + 1.0)
    far = max(far, near) if far <= 200 else far + camera.travelled
    corners = ((left, 0, near), (left, 0, far), (right, 0, far), (right, 0, near))
    _fill(canvas, [camera.project(corner) for corner in corners], colour)


def _box(
    canvas: Frame, camera: Camera, at: Point, width: float, low: float, high: float, colour: Colour
) -> None:
    x, y, z = at
    left, bottom = camera.project((x - width / 2, y + low, z))
    right, top = camera.project((x + width / 2, y + high, z))
    _fill(canvas, [(left, bottom), (left, top), (right, top), (right, bottom)], colour)


def _tree(canvas: Frame, camera: Camera, at: Point, size: float) -> None:
    _box(canvas, camera, at, 0.35 * size, 0, 1.6 * size, TRUNK)
    x, _, z = at
    for dx, y, radius, colour in ((0.25, 2.5, 1.2, SHADE), (-0.15, 2.7, 1.1, LEAVES)):
        middle = camera.project((x + dx * size, y * size, z))
        edge = camera.project((x + (dx + radius) * size, y * size, z))
        scale = 1 << SUBPIXEL
        cv2.circle(
            canvas,
            (round(middle[0] * scale), round(middle[1] * scale)),
            round((edge[0] - middle[0]) * scale),
            colour,
            -1,
            cv2.LINE_AA,
            SUBPIXEL,
        )


def _car(canvas: Frame, camera: Camera, at: Point, colour: Colour, oncoming: bool) -> None:
    x, y, z = at
    for side in (-0.7, 0.7):
        _box(canvas, camera, (x + side, y, z), 0.3, 0, 0.4, TYRE)
    _box(canvas, camera, at, 1.9, 0.25, 0.9, colour)
    _box(canvas, camera, at, 1.5, 0.9, 1.45, colour)
    _box(canvas, camera, at, 1.3, 0.95, 1.35, GLASS)
    for side in (-0.72, 0.72):
        _box(
            canvas, camera, (x + side, y, z), 0.28, 0.55, 0.72, LAMP if oncoming else (150, 24, 24)
        )


def _fill(canvas: Frame, outline: Sequence[tuple[float, float]], colour: Colour) -> None:
    points = np.round(np.array(outline) * (1 << SUBPIXEL)).astype(np.int32)
    cv2.fillPoly(canvas, [points], colour, cv2.LINE_AA, SUBPIXEL)


def engine_hum(seconds: float) -> NDArray[np.float32]:
    """An engine that speeds up a little; (samples,) in [-1, 1] at 48 kHz."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * np.pi * (58 * time + 6 * time**2)
    harmonics = sum(np.sin(n * phase + n) / n for n in (1, 2, 3, 4, 6))
    fade = np.clip(np.minimum(time, seconds - time) / 0.05, 0, 1)
    return (0.15 * harmonics * fade).astype(np.float32)


def render_clip(
    path: Path, *, width: int = 256, height: int = 192, frames: int = 24, rate: int = 12
) -> None:
    """Write the clip: H.264 with sound (AAC), ``frames`` frames at ``rate`` a second."""
    with av.open(str(path), "w") as container:
        options = {"crf": "16"} | SAME_BYTES
        video: Any = container.add_stream("libx264", rate=rate, options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio: Any = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(draw_frame(width, height, index / rate), "rgb24")
            container.mux(video.encode(picture))
        container.mux(video.encode())
        sound = av.AudioFrame.from_ndarray(engine_hum(frames / rate)[None], "fltp", "mono")
        sound.sample_rate, sound.pts = SAMPLE_RATE, 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode())
