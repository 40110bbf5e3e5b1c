"""Segments of a window propagated together, on the device that the models are on.

Shapes: T frames of a segment, both key frames included, H x W working size, RGB.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fresco_core.propagation import PropagationOptions
from io_pipeline.blocks import Block
from io_pipeline.pace import Pace
from io_pipeline.propagate import key_frames
from io_pipeline.tasks import PropagateSegments
from io_pipeline.window import Window
from io_pipeline.worker import NoMemoryToPropagate, Report

Frames = NDArray[np.uint8]


def propagate_segments(
    task: PropagateSegments, block: Block, device: torch.device, report: Report
) -> None:
    """Fill the segments' parts of ``results``; reads ``frames``, ``keys`` and ``flows``.

    Reports phase "propagate".

    Raises:
        NoMemoryToPropagate: the device, or the task's ``memory``, is too small. Nothing is kept.
        KernelsError: this machine cannot build what paints; the CPU has to do it from here on.
    """
    window = task.window
    chosen = [each for each in task.segments if _between(window, each) > 0]
    if not chosen:
        return
    pace = Pace(report, "propagate", 3 * sum(_between(window, each) for each in chosen))
    arguments = [_arguments(window, each, block) for each in chosen]
    reason = ""
    try:
        painted = _paint(arguments, task.options, device, task.memory, pace.one_more)
    except torch.OutOfMemoryError as error:
        reason = str(error).strip().partition("\n")[0]
    if reason:  # here, where the error no longer holds what it was raised among
        raise NoMemoryToPropagate(reason)
    for each, frames_THWC in zip(chosen, painted, strict=True):
        first, last = window.segments[each]
        block["results"][first + 1 : last] = frames_THWC


def _between(window: Window, segment: int) -> int:
    first, last = window.segments[segment]
    return last - first - 1


def _arguments(window: Window, segment: int, block: Block) -> tuple[NDArray[Any], ...]:
    first, last = window.segments[segment]
    forward, backward = block["flows"][:, first:last]
    frames_THWC = block["frames"][first : last + 1]
    return frames_THWC, *key_frames(window, segment, block), forward, backward


def _paint(
    arguments: Sequence[tuple[NDArray[Any], ...]],
    options: PropagationOptions,
    device: torch.device,
    memory: int,
    on_frame: Callable[[], None],
) -> Sequence[Frames]:
    """The frames between the key frames of each segment, (T-2,H,W,3) uint8."""
    from fresco_core.propagation.gpu import Segment, paint_segments

    segments = [Segment(*each) for each in arguments]
    return paint_segments(segments, options, device, memory=memory, on_frame=on_frame)
