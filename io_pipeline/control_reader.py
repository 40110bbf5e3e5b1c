"""Control maps that come with a clip, read for its key frames: what is between is not converted.

Legend: K new key frames of a window, M ControlNets, H x W size of a map, C = 3 colours.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco_core.errors import ClipError
from fresco_core.keyframes import resize_frame
from io_pipeline.natural_order import natural_order
from io_pipeline.plan import ClipPlan, ControlPictures, ControlSource, ControlVideo
from io_pipeline.regular_file import open_regular
from io_pipeline.video import ClipReader, Engine, scan_clip
from io_pipeline.window import Window

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# Of files: four colours of 32 bits each, and what programs write about a picture.
_BYTES_PER_PIXEL, _BYTES_BESIDE = 16, 16 << 20

Array = NDArray[np.uint8]
OnNumber = Callable[[int], None]


def scan_control(
    path: Path,
    plan: ClipPlan,
    *,
    engine: Engine,
    max_pixels: int,
    threads: int = 1,
    on_number: OnNumber = lambda number: None,
) -> ControlSource:
    """What a video or a folder of control maps holds, which has to suit the planned clip.

    There is one map for each frame of the clip, of the clip's size or of the working size.
    ``engine`` and ``max_pixels`` are those of `scan_clip`; ``on_number`` is called with every frame
    or picture looked at.

    Raises:
        ClipError: it does not suit the clip, or cannot be read.
    """
    if not path.is_dir():
        info = scan_clip(
            path, engine=engine, max_pixels=max_pixels, on_number=on_number, threads=threads
        )
        _check_count(path, info.frame_count, plan)
        _check_size(path, (info.height, info.width), plan)
        return ControlVideo(info)
    try:
        with os.scandir(path) as entries:
            pictures = (entry.name for entry in entries if _is_picture(entry.name))
            names = sorted(pictures, key=natural_order)
    except OSError as error:
        raise ClipError(f"{path}: cannot be read: {error.strerror}") from error
    _check_count(path, len(names), plan)
    for number in plan.key_numbers:
        picture_HWC = _read_picture(path / names[number], max_pixels)
        _check_size(path / names[number], picture_HWC.shape[:2], plan)
        on_number(number)
    return ControlPictures(path, tuple(names))


class ControlReader(AbstractContextManager["ControlReader"]):
    """The control maps of a planned clip's windows, forwards only."""

    def __init__(self, plan: ClipPlan, *, max_pixels: int, threads: int = 1) -> None:
        self._plan = plan
        # Two ControlNets may have one source: it is read once.
        self._sources = {
            source: _VideoReader(source, threads)
            if isinstance(source, ControlVideo)
            else _PictureReader(source, max_pixels)
            for source in plan.controls
            if source is not None
        }

    def read(
        self,
        window: Window,
        controls_2KMHW: Array,
        on_number: OnNumber = lambda number: None,
    ) -> None:
        """Fill in those of a window's maps that are given, for whoever draws the others.

        Windows in between are passed over. ``on_number`` is called with every frame looked at.

        Raises:
            ClipError: maps changed since the clip was planned, or cannot be read.
        """
        for source, reader in self._sources.items():
            which = [i for i, other in enumerate(self._plan.controls) if other == source]
            for key, number in enumerate(window.key_numbers):
                map_HW = self._to_map(source, reader(number, on_number))
                controls_2KMHW[:, key, which] = map_HW

    def close(self) -> None:
        """Release decoders and files."""
        for reader in self._sources.values():
            reader.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _to_map(self, source: ControlSource, picture_HWC: Array) -> Array:
        _check_size(source.path, picture_HWC.shape[:2], self._plan)
        resized_HWC = resize_frame(picture_HWC, self._plan.resolution)
        return np.asarray(cv2.cvtColor(resized_HWC, cv2.COLOR_RGB2GRAY), np.uint8)


class _VideoReader:
    def __init__(self, source: ControlVideo, threads: int) -> None:
        self._reader = ClipReader(source.info, threads=threads)
        self._next = 0

    def __call__(self, number: int, on_number: OnNumber) -> Array:
        while self._next < number:
            self._reader.skip()
            on_number(self._next)
            self._next += 1
        self._next += 1
        return next(self._reader)

    def close(self) -> None:
        self._reader.close()


class _PictureReader:
    def __init__(self, source: ControlPictures, max_pixels: int) -> None:
        self._source, self._max_pixels = source, max_pixels

    def __call__(self, number: int, on_number: OnNumber) -> Array:
        on_number(number)
        return _read_picture(self._source.path / self._source.names[number], self._max_pixels)

    def close(self) -> None:
        pass


def _check_count(path: Path, count: int, plan: ClipPlan) -> None:
    frames = plan.info.frame_count
    if count != frames:
        raise ClipError(
            f"{path}: {_counted(count, 'control map')} for a clip of {_counted(frames, 'frame')}: "
            "give one for each frame"
        )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _check_size(path: Path, size: tuple[int, ...], plan: ClipPlan) -> None:
    wanted = plan.info.height, plan.info.width
    if size not in (wanted, plan.working_size):
        raise ClipError(
            f"{path}: control maps of {size[1]}x{size[0]} for a clip of {wanted[1]}x{wanted[0]}: "
            "give them in the clip's size"
        )


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")


def _read_picture(path: Path, max_pixels: int) -> Array:
    """A picture, RGB (H,W,3); of more than 8 bits the upper ones, without transparency.

    Links are not followed: they could lead out of the folder that the clip was put into.
    """
    picture_HWC = None
    try:
        with open_regular(path, follow=False) as file:
            size = _size(file)
            if size is not None:
                _check_pixels(path, *size, os.fstat(file.fileno()).st_size, max_pixels)
                file.seek(0)
                picture_HWC = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
    except OSError as error:
        raise ClipError(f"{path}: cannot be read: {error.strerror or error}") from error
    except cv2.error:  # of a kind that it does not know
        pass
    if picture_HWC is None:
        raise ClipError(f"{path}: is no picture that can be read; write it again, as PNG")
    return np.asarray(cv2.cvtColor(picture_HWC, cv2.COLOR_BGR2RGB), np.uint8)


def _size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height by a picture's header, nothing decoded; None where there is none."""
    from PIL import Image, UnidentifiedImageError  # most readers never see a picture

    Image.MAX_IMAGE_PIXELS = None  # limits.max_pixels is ours
    try:
        with Image.open(file, formats=_FORMATS) as picture:
            return picture.size
    except (UnidentifiedImageError, ValueError, EOFError):
        return None


def _check_pixels(path: Path, width: int, height: int, nbytes: int, max_pixels: int) -> None:
    """Raise ClipError where a picture would take more memory than any that is meant."""
    if width * height > max_pixels:
        raise ClipError(
            f"{path}: {width}x{height} is more than the {max_pixels} pixels allowed "
            "(limits.max_pixels)"
        )
    if nbytes > (most := width * height * _BYTES_PER_PIXEL + _BYTES_BESIDE):
        raise ClipError(
            f"{path}: {nbytes} bytes for {width}x{height} pixels, which take {most} at most; "
            "write it again, as PNG"
        )
