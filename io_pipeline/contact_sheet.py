"""One picture that shows a whole result: a few frames as input, control map and output.

Legend: H, W = height and width, C = 3 (red, green, blue).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

ROWS = 8
KEY_ROWS = 24  # of key frames alone
COLUMNS = ("input", "control", "output")

_PANEL = 320
_GAP = 12
_HEAD = 40
_LABEL = 130
_PAPER = (24, 24, 27)
_INK = (228, 228, 231)


def sample_numbers(count: int, rows: int = ROWS) -> tuple[int, ...]:
    """Up to so many of ``count`` numbers, spread evenly, the first and the last included."""
    spread = np.linspace(0, count - 1, min(rows, count))
    return tuple(int(number) for number in np.round(spread))


def thumbnail(frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A panel's picture, its longer side at most 320 pixels; uint8 (H, W, 3)."""
    height, width = frame_HWC.shape[:2]
    scale = min(1.0, _PANEL / max(height, width))
    if scale == 1.0:
        return frame_HWC.copy()
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small_HWC: NDArray[np.uint8] = cv2.resize(frame_HWC, size, interpolation=cv2.INTER_AREA)
    return small_HWC


def strip(panels: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """A row's pictures side by side, small: of uint8 (H, W, 3) panels of one size."""
    return np.concatenate([thumbnail(panel_HWC) for panel_HWC in panels], axis=1)


@dataclass(frozen=True, eq=False)
class Row:
    """A frame of the clip, when it is shown, and the `strip` of its input, control map, output."""

    frame_number: int
    seconds: float
    strip_HWC: NDArray[np.uint8]


def contact_sheet(rows: Sequence[Row]) -> NDArray[np.uint8]:
    """The sheet, uint8 (H, W, 3) RGB. All strips have one size."""
    height, width = rows[0].strip_HWC.shape[:2]
    width //= len(COLUMNS)
    cell = max(width, 96)
    sheet_HWC = np.full(
        (_HEAD + len(rows) * (height + _GAP), _LABEL + len(COLUMNS) * (cell + _GAP), 3),
        _PAPER,
        np.uint8,
    )
    for column, title in enumerate(COLUMNS):
        _text(sheet_HWC, title, _LABEL + column * (cell + _GAP), _HEAD - 14, 0.6)
    for number, row in enumerate(rows):
        top = _HEAD + number * (height + _GAP)
        baseline = top + min(18, height)
        _text(sheet_HWC, f"frame {row.frame_number}", _GAP, baseline, 0.45)
        if height >= 40:
            _text(sheet_HWC, f"{row.seconds:.2f} s", _GAP, baseline + 20, 0.45)
        for column, panel_HWC in enumerate(np.split(row.strip_HWC, len(COLUMNS), axis=1)):
            left = _LABEL + column * (cell + _GAP)
            sheet_HWC[top : top + height, left : left + width] = panel_HWC
    return sheet_HWC


def _text(sheet_HWC: NDArray[np.uint8], text: str, x: int, y: int, scale: float) -> None:
    cv2.putText(sheet_HWC, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)
