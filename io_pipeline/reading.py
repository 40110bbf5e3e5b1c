"""The reader: a process that holds one clip open. It decodes, and nothing else.

A decoder can hang or take its process with it: that costs the reader, not the clip. Another one
opens it at the window where this one stopped, with the other decoder.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2

from fresco_core.errors import FrescodError
from io_pipeline.blocks import Block
from io_pipeline.clip_source import ClipSource, average_rate
from io_pipeline.pace import Pace
from io_pipeline.plan import ClipPlan
from io_pipeline.prepare import Prepare, WindowReader
from io_pipeline.tasks import ClipSize, MeasureClip, OpenClip, PlanClip, ReadWindow
from io_pipeline.video import Engine

if TYPE_CHECKING:  # the worker that loads this is running as the main module
    from io_pipeline.worker import Report

_NO_LIMIT = 2**62


@dataclass(frozen=True)
class ReaderStage:
    """What a reader does, for whatever clip; ``max_pixels``: clips of more are refused."""

    max_pixels: int

    def load(self, report: "Report") -> "Reader":
        """Ready the process: there is nothing to load."""
        # A reader holds one core. With one thread OpenCV works in the caller's.
        cv2.setNumThreads(1)
        return Reader(Prepare(max_pixels=self.max_pixels))


class Reader:
    """Handles `MeasureClip`, `PlanClip`, `OpenClip` and `ReadWindow`; reports phase "decode".

    Windows are read forwards; `PlanClip` and `OpenClip` begin another clip, or the same anew.
    """

    facts: Any = None

    def __init__(self, prepare: Prepare) -> None:
        self._prepare = prepare
        self._windows: WindowReader | None = None
        self._frame_count = 0

    def __call__(self, task: Any, blocks: tuple[Block, ...], report: "Report") -> Any:
        """Do a task.

        Raises:
            ClipError: the clip is none, or broken, or changed since it was planned.
            BlockError: there is no memory for the window; the same task may be given again.
        """
        match task:
            case MeasureClip(path):
                return measure(path)
            case PlanClip(path, decoder, options, controls, kinds):
                # The decoder before holds an open file and its memory: it goes first.
                self._close()
                pace = Pace(report, "decode", 0)
                engine = cast(Engine, decoder)
                plan = self._prepare.plan(path, options, engine, pace, controls, kinds)
                self._open(plan)
                return plan
            case OpenClip(plan, window):
                self._open(plan)
                first = plan.batches[window - 1].new[-1] if window else 0
                self._opened().skip_to(first, Pace(report, "decode", self._frame_count))
            case ReadWindow(window):
                (block,) = blocks
                windows = self._opened()
                block.allocate()
                pace = Pace(report, "decode", self._frame_count)
                given = block["controls"] if window.given else None
                first_HWC = block.get("first_frame")
                windows.read(window, block["frames"], pace, given, first_HWC)
                report("decode", window.key_numbers[-1] + 1, self._frame_count)
                if window.index + 1 == window.count:
                    self._close()
            case _:
                raise TypeError(f"no task for a reader: {type(task).__name__}")
        return None

    def _open(self, plan: ClipPlan) -> None:
        self._close()
        self._windows = self._prepare.windows(plan)
        self._frame_count = plan.frame_count

    def _opened(self) -> WindowReader:
        if self._windows is None:
            raise ValueError("no clip is open")
        return self._windows

    def _close(self) -> None:
        if self._windows is not None:
            self._windows.close()
            self._windows = None


def measure(path: Path) -> ClipSize:
    """A clip's size by its header; nothing is decoded. Zeros where it cannot be opened."""
    try:
        with ClipSource(path, max_pixels=_NO_LIMIT, threads=1) as source:
            stream, context = source.stream, source.stream.codec_context
            return ClipSize(
                stream.frames or round(source.seconds * (average_rate(stream) or 0)),
                context.width * context.height,
            )
    except FrescodError:
        return ClipSize(0, 0)
