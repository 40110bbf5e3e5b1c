"""Key frame selection: frame differences -> key frame numbers -> batches.

Source: FRESCO (Yang et al., CVPR 2024), supplementary "key frame selection" and "multiple batches".

Shapes: T frames of a clip, H rows, W columns, C = 3 (RGB).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# Differences are measured at this short side, whatever size the clip is translated at.
DIFFERENCE_RESOLUTION = 512
SIZE_MULTIPLE = 64
MIN_BATCH_SIZE = 3
_SMALLEST_LAST_BATCH = 3


def working_size(height: int, width: int, resolution: int) -> tuple[int, int]:
    """Size (height, width) at which a clip is translated: short side `resolution`, multiples of 64.

    The aspect ratio is kept up to rounding to multiples of 64 (half to even), never below 64.
    """
    scale = resolution / min(height, width)

    def side(size: int) -> int:
        return max(SIZE_MULTIPLE, round(size * scale / SIZE_MULTIPLE) * SIZE_MULTIPLE)

    return side(height), side(width)


def resize_frame(
    frame_HWC: NDArray[np.uint8], resolution: int, out_HWC: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Resize an RGB frame (uint8) to its working size: Lanczos when enlarging, area else.

    The result is made in `out_HWC` where it is given; without it, a frame of working size is
    returned as it is.

    Raises:
        ValueError: `out_HWC` is not of the working size.
    """
    height, width = frame_HWC.shape[:2]
    rows, columns = working_size(height, width, resolution)
    if out_HWC is not None and out_HWC.shape != (rows, columns, 3):
        raise ValueError(f"{columns}x{rows} does not fit into an array of {out_HWC.shape}")
    if (rows, columns) == (height, width):
        if out_HWC is None:
            return frame_HWC
        out_HWC[:] = frame_HWC
        return out_HWC
    if out_HWC is None:
        out_HWC = np.empty((rows, columns, 3), np.uint8)
    enlarge = resolution > min(height, width)
    interpolation = cv2.INTER_LANCZOS4 if enlarge else cv2.INTER_AREA
    cv2.resize(frame_HWC, (columns, rows), dst=out_HWC, interpolation=interpolation)
    return out_HWC


class DifferenceCurve:
    """Mean squared difference of successive frames, gathered while a clip streams by.

    A frame is resized to a short side of 512, blurred (9x9 Gaussian) and scaled to [-1, 1]. Entry
    j is the mean over pixels and channels of the squared difference of frames j and j-1; the
    first is 0.
    """

    def __init__(self) -> None:
        self._values: list[float] = []
        self._previous_HWC: NDArray[np.float32] | None = None

    def add(self, frame_HWC: NDArray[np.uint8]) -> None:
        """Append the next frame (uint8 RGB) of the clip."""
        blurred_HWC = cv2.GaussianBlur(resize_frame(frame_HWC, DIFFERENCE_RESOLUTION), (9, 9), 0)
        current_HWC = blurred_HWC.astype(np.float32) / 255 * 2 - 1
        if self._previous_HWC is None:
            self._values.append(0.0)
        else:
            self._values.append(float(np.mean((current_HWC - self._previous_HWC) ** 2)))
        self._previous_HWC = current_HWC

    def values(self) -> NDArray[np.float64]:
        """The curve so far, float64 (T,)."""
        return np.array(self._values, np.float64)


def every_nth(count: int, interval: int) -> tuple[int, ...]:
    """Key frames at a fixed interval: 0, interval, 2 * interval, … below `count`."""
    if interval < 1:
        raise ValueError(f"interval must be at least 1, not {interval}")
    return tuple(range(0, count, interval))


def by_difference(
    differences_T: Sequence[float] | NDArray[np.floating], min_interval: int, max_interval: int
) -> tuple[int, ...]:
    """Key frames where a clip changes most, at least `min_interval` apart.

    Starting from the first and the last frame, the frame of the largest difference that is not too
    near to a key frame becomes one, until no gap exceeds `max_interval` or no candidate is left.

    Args:
        differences_T: `DifferenceCurve.values()`, one entry a frame.
        min_interval: frames between key frames, at least; 0 allows none but the first and last.
        max_interval: the gap that selection aims for; a target, not a promise.

    Returns:
        increasing frame numbers; (0,) for a clip of one frame.
    """
    candidates_T = np.array(differences_T, np.float64)
    count = len(candidates_T)
    keys = {0, count - 1}
    candidates_T[:min_interval] = -1
    candidates_T[max(0, count - min_interval) :] = -1
    if min_interval == 0:
        candidates_T[:] = -1
    while _widest_gap(sorted(keys)) > max_interval:
        key = int(np.argmax(candidates_T))
        if candidates_T[key] == -1:
            break
        candidates_T[max(0, key - min_interval) : key + min_interval] = -1
        keys.add(key)
    return tuple(sorted(keys))


def _widest_gap(keys: Sequence[int]) -> int:
    return max((b - a for a, b in itertools.pairwise(keys)), default=0)


def select_key_frames(
    differences_T: Sequence[float] | NDArray[np.floating], min_interval: int, max_interval: int
) -> tuple[int, ...]:
    """Key frames of a clip; the first and the last frame always are.

    Equal intervals give a fixed interval, else `by_difference` decides. The last frame is added so
    that no frame lies behind the last key frame, where nothing could be propagated.

    Raises:
        ValueError: empty clip, or intervals that are no range.
    """
    count = len(differences_T)
    if count == 0:
        raise ValueError("a clip of no frames has no key frames")
    if not 0 <= min_interval <= max_interval:
        raise ValueError(f"intervals {min_interval}..{max_interval} are no range")
    if min_interval == max_interval:
        keys = every_nth(count, min_interval)
    else:
        keys = by_difference(differences_T, min_interval, max_interval)
    return keys if keys[-1] == count - 1 else (*keys, count - 1)


@dataclass(frozen=True)
class Batch:
    """Key frames translated together.

    `new` and `carried` are frame numbers (or indices, whatever was batched). `carried` is empty in
    the first batch, else the clip's first key frame and the last one of the batch before.
    """

    new: tuple[int, ...]
    carried: tuple[int, ...] = ()

    @property
    def frames(self) -> tuple[int, ...]:
        """All key frames in processing order, the carried ones first."""
        return self.carried + self.new


def batch_key_frames(keys: Sequence[int], batch_size: int) -> tuple[Batch, ...]:
    """Cut key frames into batches of at most about `batch_size`, two of them carried.

    The last batch is filled up from the one before so that it has three new key frames, and no
    batch of a clip of several key frames is left with one. A last batch may thus exceed
    `batch_size` by one (sizes 3 and 4).

    Raises:
        ValueError: `batch_size` below 3: two carried key frames leave no room for a new one.
    """
    if batch_size < MIN_BATCH_SIZE:
        raise ValueError(f"batch size {batch_size} is below {MIN_BATCH_SIZE}")
    if not keys:
        return ()
    step = batch_size - 2
    groups = [list(keys[i : i + step]) for i in range(2, len(keys), step)] or [[]]
    groups[0] = [*keys[:2], *groups[0]]
    if len(groups) > 1:
        donor, last = groups[-2], groups[-1]
        keep = 2 if len(groups) == 2 else 0
        while len(last) < _SMALLEST_LAST_BATCH and len(donor) > keep:
            last.insert(0, donor.pop())
        if not donor:
            del groups[-2]
    batches = [Batch(tuple(groups[0]))]
    for group in groups[1:]:
        batches.append(Batch(tuple(group), (keys[0], batches[-1].new[-1])))
    return tuple(batches)
