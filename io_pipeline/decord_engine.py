"""decord as the decoder, on request, of the clips it is right about.

It is fast, but rounds colours down and keeps some kilobytes of every frame it has read; that is why
it is not the default.

Legend: H, W = height and width of a frame, C = 3 (red, green, blue).
"""

import importlib.util
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fresco_core.errors import ClipError
from io_pipeline.clip_info import ClipInfo

# Mean absolute difference of the first frame, in grey levels, up to which two decoders agree:
# decord's rounding makes one or two, a wrong colour matrix five and more.
_SAME_PICTURE = 3.0


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
        if np.abs(starts - times - shift).max() > 0.002:
            return False
        frame_HWC = reader.next().asnumpy()
    except Exception:  # Whatever it raises, it is not to be trusted with this clip.
        return False
    if frame_HWC.shape != first_HWC.shape:
        return False
    return float(np.abs(frame_HWC.astype(np.int16) - first_HWC).mean()) <= _SAME_PICTURE


def frames(path: Path, threads: int) -> Generator[NDArray[np.uint8], None, None]:
    """Every frame, uint8 (H, W, 3) RGB, upright, in order. Raises ClipError where decord fails."""
    try:
        reader = _open(path, threads)
        for _ in range(len(reader)):
            yield reader.next().asnumpy()
    except Exception as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise ClipError(f"{path}: decord cannot read it ({line}); use engine pyav") from error


def _open(path: Path, threads: int) -> Any:
    # Imported here: loading it costs time and memory that clips for PyAV need not pay.
    import decord

    return decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0), num_threads=threads)
