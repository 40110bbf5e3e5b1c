"""Between a clip's YUV and RGB: which matrix, which range, and the conversion itself.

Legend: H, W = height and width of a frame, C = 3 (red, green, blue).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

# Matrix code points of ITU-T H.273 (as tagged in files) and the scaler's names for the same.
RGB, BT709, UNSPECIFIED, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020, BT2020_CONSTANT = (
    0,
    1,
    2,
    4,
    5,
    6,
    7,
    9,
    10,
)
_SCALER_MATRIX = {
    BT709: 1,
    FCC: 4,
    BT470BG: 5,
    SMPTE170M: 5,
    SMPTE240M: 7,
    BT2020: 9,
    BT2020_CONSTANT: 9,
}
# The scaler applies a matrix only where source and destination differ in name; the RGB side has
# none, so it is given one that no clip on the other side has.
_NO_MATRIX, _NO_MATRIX_EITHER = 4, 7
_LIMITED, _FULL = 1, 2
# Without these flags the scaler rounds down: every pass would darken the clip by 1 to 2 levels.
_BILINEAR, _FULL_CHROMA, _ACCURATE_ROUNDING = 2, 8192, 262144
_EXACT = _BILINEAR | _FULL_CHROMA | _ACCURATE_ROUNDING


@dataclass(frozen=True)
class Colour:
    """Colour tags of a clip: H.273 code points, 2 = unspecified; ``full_range``: Y in 0..255."""

    matrix: int
    primaries: int
    transfer: int
    full_range: bool

    def assumed(self, width: int, height: int) -> "Colour":
        """These tags with the matrix settled: BT.709 for untagged HD, BT.601 below.

        HD is more than 576 pixels on the short side or at least 1280 on the long one.
        """
        if self.matrix in _SCALER_MATRIX:
            return self
        high_definition = min(width, height) > 576 or max(width, height) >= 1280
        matrix = BT709 if high_definition else SMPTE170M
        return Colour(matrix, self.primaries, self.transfer, self.full_range)

    def limited(self) -> "Colour":
        """The same colour in limited range, which every player reads alike."""
        return Colour(self.matrix, self.primaries, self.transfer, full_range=False)


def _one_thread() -> dict[str, Any]:
    """``threads=1`` where the scaler takes it: newer ones use every core for each frame."""
    try:
        frame = VideoFrame(16, 16, "yuv420p")
        VideoReformatter().reformat(frame, format="rgb24", threads=1)
    except TypeError:
        return {}
    return {"threads": 1}


_THREADS = _one_thread()


def _without(matrix: int) -> int:
    return _NO_MATRIX if matrix != _NO_MATRIX else _NO_MATRIX_EITHER


class ToRGB:
    """Decoded frames of one clip to RGB arrays, all of the first frame's size."""

    def __init__(self, colour: Colour, width: int, height: int) -> None:
        self._colour = colour
        self._size = {"width": width, "height": height}
        self._scaler = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """One decoded frame as uint8 (H, W, 3) RGB, not yet turned by the rotation flag."""
        matrix = _SCALER_MATRIX[self._colour.matrix]
        rgb: Any = self._scaler.reformat(
            frame,
            format="rgb24",
            src_colorspace=matrix,
            dst_colorspace=_without(matrix),
            src_color_range=_FULL if self._colour.full_range else _LIMITED,
            dst_color_range=_FULL,
            interpolation=_EXACT,
            **self._size,
            **_THREADS,
        )
        frame_HWC: NDArray[np.uint8] = rgb.to_ndarray()
        return frame_HWC


class FromRGB:
    """RGB arrays to frames of one encoder's pixel format and colour."""

    def __init__(self, colour: Colour, pixel_format: str) -> None:
        self._colour = colour
        self._pixel_format = pixel_format
        self._scaler = VideoReformatter()

    def __call__(self, frame_HWC: NDArray[np.uint8]) -> VideoFrame:
        """One uint8 (H, W, 3) RGB frame as a frame to encode."""
        matrix = _SCALER_MATRIX[self._colour.matrix]
        return self._scaler.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24"),
            format=self._pixel_format,
            src_colorspace=_without(matrix),
            dst_colorspace=matrix,
            src_color_range=_FULL,
            dst_color_range=_FULL if self._colour.full_range else _LIMITED,
            interpolation=_EXACT,
            **_THREADS,
        )
