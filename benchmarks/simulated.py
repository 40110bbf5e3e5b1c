"""Stages that only hold their device for a given time: for measuring what schedules them.

A clip is a text file with the number of its frames, width and height of its picture in pixels, and
a key frame every so many: ``600 512 512 5``. Reading fills no frames, translation makes no
pictures; each step sleeps as long as it is said to take, times a scale, and reports its progress
as often as the real one does.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
    CompilePropagation,
    DrawMap,
    LoadCheckpoint,
    MeasureClip,
    OpenClip,
    PlanClip,
    PropagateSegment,
    PropagateSegments,
    PublishClip,
    PublishWindow,
    ReadWindow,
    SaveCheckpoint,
    Translated,
    TranslateWindow,
)
from io_pipeline.window import BY_DEVICE
from io_pipeline.worker import Report

STEPS = 15  # executed of a schedule of 20
# Where a simulated device leaves in the block when it was ready, and propagation finds it.
READY = "carry_latents"


@dataclass(frozen=True)
class Durations:
    """Seconds that steps take, before scaling. Defaults: as measured on an H200 and its host.

    Attributes:
        decode: a frame.
        control_map: a key frame's (HED on one core).
        device_map: the same on a device.
        key_frame: a key frame, in a window: 17.06 s for 6.
        run: one patch-matching run: one frame, one direction.
        frame: an in-between frame's guides, selection and blending.
        device_run: a run on a device that is full.
        device_spare: what a device takes for a few segments, it takes for so many more.
        publish: a frame.
        scale: all of them times this.
    """

    decode: float = 0.004
    control_map: float = 2.2
    device_map: float = 0.02
    key_frame: float = 17.06 / 6
    run: float = 2.9
    frame: float = 0.25
    device_run: float = 0.0022
    device_spare: int = 12
    publish: float = 0.03
    scale: float = 1.0

    def on_faster_cores(self, times: float) -> "Durations":
        """What cores do takes so many times less."""
        names = ("decode", "control_map", "run", "frame", "publish")
        return replace(self, **{name: getattr(self, name) / times for name in names})

    def hold(
        self, seconds: float, tell: Callable[[int], None] | None = None, parts: int = 1
    ) -> None:
        """Be busy; ``tell`` how many of so many parts are over."""
        begin = time.monotonic()
        for part in range(1, parts + 1):
            # From the beginning: what one sleep is late, the next one makes up for.
            until = begin + seconds * self.scale * part / parts
            time.sleep(max(0.0, until - time.monotonic()))
            if tell is not None:
                tell(part)

    def segment(self, between: int) -> float:
        """Seconds for a segment with so many frames between its key frames."""
        return between * (2 * self.run + self.frame)

    def group(self, between: Sequence[int]) -> float:
        """Seconds for segments with so many frames between, all at once on a device."""
        return 2 * self.device_run * (sum(between) + self.device_spare * max(between))


def write_clip(
    path: Path, frames: int, width: int = 512, height: int = 512, interval: int = 5
) -> None:
    """A simulated clip and its prompt."""
    path.write_text(f"{frames} {width} {height} {interval}")
    path.with_suffix(".txt").write_text("a road")


def plan_clip(path: Path, batch_size: int) -> ClipPlan:
    """What reading the whole clip would tell."""
    frames, width, height, interval = map(int, path.read_text().split())
    info = ClipInfo(
        path=path,
        width=width,
        height=height,
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
    batches = batch_key_frames(keys, batch_size)
    return ClipPlan(info, (height, width), keys, batches, controls=(None,))


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
                frames, width, height, _ = map(int, path.read_text().split())
                return ClipSize(frames, width * height)
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
    """Computes nothing. ``log`` gets a line for each segment: when its keys were ready, and now."""

    durations: Durations
    log: Path | None = None

    def load(self, report: Report) -> "Cpu":
        """Nothing to load."""
        return Cpu(self)


class Cpu:
    """Handles what the CPU pool handles; None is no work at all."""

    facts: Any = None

    def __init__(self, stage: CpuStage) -> None:
        self._durations = stage.durations
        self._log = None if stage.log is None else os.open(stage.log, os.O_WRONLY | os.O_APPEND)

    def __call__(self, task: Any, blocks: Sequence[Block], report: Report) -> Any:
        """Hold a core as long as the task takes."""
        durations = self._durations
        match task:
            case DrawMap():
                durations.hold(durations.control_map)
            case PropagateSegment(window, segment):
                if self._log is not None:
                    ready = float(blocks[0][READY].ravel()[:2].view(np.float64)[0])
                    os.write(self._log, f"{ready!r} {time.monotonic()!r}\n".encode())
                begin, end = window.segments[segment]
                parts = 3 * (end - begin - 1)
                durations.hold(
                    durations.segment(end - begin - 1),
                    lambda done: report("propagate", done, parts),
                    parts,
                )
            case PublishWindow(window=window):
                durations.hold(durations.publish * window.frame_count)
            case PublishClip():
                return ()
            case SaveCheckpoint() | LoadCheckpoint() | CompilePropagation() | None:
                pass
            case _:
                raise TypeError(type(task).__name__)
        return None


@dataclass(frozen=True)
class DeviceStage:
    """Translates and propagates nothing."""

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
        durations = self._durations
        if isinstance(task, PropagateSegments):
            chosen = [task.window.segments[segment] for segment in task.segments]
            durations.hold(durations.group([end - begin - 1 for begin, end in chosen]))
            return None
        assert isinstance(task, TranslateWindow)
        durations.hold(durations.device_map * task.maps.count(BY_DEVICE))
        durations.hold(
            durations.key_frame * len(task.window.key_numbers),
            lambda done: report("step", done, STEPS),
            STEPS,
        )
        blocks[0][READY].ravel()[:2].view(np.float64)[0] = time.monotonic()
        return Translated((), (task.prompt.positive, task.prompt.positive))
