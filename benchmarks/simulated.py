"""Stages that only hold their device for a given time: for measuring what schedules them.

A clip is a text file with the number of its frames, the side of its square picture in pixels, and
a key frame every so many: ``600 512 5``. Reading fills no frames, translation makes no pictures;
each step sleeps as long as it is said to take, times a scale.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fresco_core.keyframes import batch_key_frames, select_key_frames
from io_pipeline.blocks import Block
from io_pipeline.clip_info import ClipInfo
from io_pipeline.colour import Colour
from io_pipeline.plan import ClipPlan
from io_pipeline.tasks import (
    ClipSize,
    DrawMap,
    LoadCheckpoint,
    MeasureClip,
    OpenClip,
    PlanClip,
    PropagateSegment,
    PublishClip,
    PublishWindow,
    ReadWindow,
    SaveCheckpoint,
    Translated,
    TranslateWindow,
)
from io_pipeline.worker import Report


@dataclass(frozen=True)
class Durations:
    """Seconds that steps take, before scaling. Defaults: docs of what was measured on an H200.

    Attributes:
        decode: a frame.
        control_map: a key frame's (HED on one core).
        key_frame: a key frame, in a window: 17.06 s for 6.
        run: one patch-matching run: one frame, one direction.
        frame: an in-between frame's guides, selection and blending.
        publish: a frame.
        scale: all of them times this.
    """

    decode: float = 0.004
    control_map: float = 2.2
    key_frame: float = 17.06 / 6
    run: float = 2.9
    frame: float = 0.25
    publish: float = 0.03
    scale: float = 1.0

    def hold(self, seconds: float) -> None:
        """Be busy."""
        time.sleep(seconds * self.scale)

    def segment(self, between: int) -> float:
        """Seconds for a segment with so many frames between its key frames."""
        return between * (2 * self.run + self.frame)


def write_clip(path: Path, frames: int, side: int = 512, interval: int = 5) -> None:
    """A simulated clip and its prompt."""
    path.write_text(f"{frames} {side} {interval}")
    path.with_suffix(".txt").write_text("a road")


def plan_clip(path: Path, batch_size: int) -> ClipPlan:
    """What reading the whole clip would tell."""
    frames, side, interval = map(int, path.read_text().split())
    info = ClipInfo(
        path=path,
        width=side,
        height=side,
        frame_count=frames,
        times=tuple(range(frames)),
        end=frames,
        time_base=Fraction(1, 30),
        frame_rate=Fraction(30),
        rotation=0,
        mirrored=False,
        pixel_aspect=Fraction(1),
        colour=Colour(1, 1, 1, False),
        sound_tracks=0,
        codec="simulated",
        pixel_format="rgb24",
        engine="pyav",
        warnings=(),
    )
    keys = select_key_frames(np.zeros(frames), interval, interval)
    return ClipPlan(info, (side, side), keys, batch_key_frames(keys, batch_size))


@dataclass(frozen=True)
class ReaderStage:
    """Decodes nothing."""

    durations: Durations
    batch_size: int = 8

    def load(self, report: Report) -> "Reader":
        """Nothing to load."""
        return Reader(self)


class Reader:
    """Handles what readers handle."""

    facts: Any = None

    def __init__(self, stage: ReaderStage) -> None:
        self._stage = stage

    def __call__(self, task: Any, blocks: Sequence[Block], report: Report) -> Any:
        """Hold a core as long as decoding takes."""
        durations = self._stage.durations
        match task:
            case MeasureClip(path):
                frames, side, _ = map(int, path.read_text().split())
                return ClipSize(frames, side * side)
            case PlanClip(path):
                plan = plan_clip(path, self._stage.batch_size)
                durations.hold(durations.decode * plan.info.frame_count)
                return plan
            case OpenClip():
                return None
            case ReadWindow(window):
                blocks[0].allocate()
                durations.hold(durations.decode * window.frame_count)
                return None
        raise TypeError(type(task).__name__)


@dataclass(frozen=True)
class CpuStage:
    """Computes nothing."""

    durations: Durations

    def load(self, report: Report) -> "Cpu":
        """Nothing to load."""
        return Cpu(self.durations)


class Cpu:
    """Handles what the CPU pool handles."""

    facts: Any = None

    def __init__(self, durations: Durations) -> None:
        self._durations = durations

    def __call__(self, task: Any, blocks: Sequence[Block], report: Report) -> Any:
        """Hold a core as long as the task takes."""
        durations = self._durations
        match task:
            case DrawMap():
                durations.hold(durations.control_map)
            case PropagateSegment(window, segment):
                begin, end = window.segments[segment]
                durations.hold(durations.segment(end - begin - 1))
            case PublishWindow(window=window):
                durations.hold(durations.publish * window.frame_count)
            case PublishClip():
                return ()
            case SaveCheckpoint() | LoadCheckpoint():
                pass
            case _:
                raise TypeError(type(task).__name__)
        return None


@dataclass(frozen=True)
class DeviceStage:
    """Translates nothing."""

    name: str
    durations: Durations

    def load(self, report: Report) -> "Device":
        """Nothing to load."""
        return Device(self)


class Device:
    """Handles what a device handles."""

    def __init__(self, stage: DeviceStage) -> None:
        self.facts = {"device": stage.name}
        self._durations = stage.durations

    def __call__(self, task: Any, blocks: Sequence[Block], report: Report) -> Any:
        """Hold the device as long as the key frames take."""
        assert isinstance(task, TranslateWindow)
        self._durations.hold(self._durations.key_frame * len(task.window.key_numbers))
        return Translated((), (task.prompt.positive, task.prompt.positive))
