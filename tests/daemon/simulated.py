"""Stages for runs of the whole pipeline: real clips, blocks and result folders, no networks.

Translating and propagating invert the picture, so that every frame of a result tells which frame
of the clip it was; where prompts are by time or control maps given, in its lowest bits also with
which. A run is disturbed by faults: things that a worker does when it comes to a named
event, such as ``translate a 1`` (job ``a``, window 1). All events are written down in
``events.txt``, a line each; ``done`` is added where a task is done.

Workers import this module: it imports nothing of the supervisor's.
"""

import fcntl
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fresco_core.keyframes import Batch
from io_pipeline import checkpoint
from io_pipeline.blocks import Block
from io_pipeline.tasks import (
    CompilePropagation,
    DrawMap,
    LoadCheckpoint,
    MatchPair,
    MeasureClip,
    OpenClip,
    PlanClip,
    PropagateSegment,
    PropagateSegments,
    PublishClip,
    PublishWindow,
    ReadWindow,
    SaveCheckpoint,
    SearchFlows,
    Translated,
    TranslateWindow,
)
from io_pipeline.window import BY_DEVICE, Window
from io_pipeline.worker import Report

STEPS = 3


@dataclass(frozen=True)
class Fault:
    """What is done at an event, so many ``times``, after the first so many."""

    event: str
    do: Callable[[], None]
    times: int = 1
    after: int = 0


@dataclass(frozen=True)
class Events:
    """Writes down what happens, and disturbs it."""

    folder: Path
    faults: tuple[Fault, ...] = ()

    def __call__(self, event: str) -> None:
        with (self.folder / "events.txt").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            before = file.read().splitlines().count(event)
            file.write(event + "\n")
        for fault in self.faults:
            if fault.event == event and 0 <= before - fault.after < fault.times:
                fault.do()


def kill(number: int = 9) -> None:
    """The worker dies."""
    os.kill(os.getpid(), number)


def kill_supervisor() -> None:
    """The process that started the worker dies."""
    os.kill(os.getppid(), 9)


def wait_for(folder: Path, event: str, count: int) -> None:
    """The task goes on a moment after something has happened so many times."""
    while (folder / "events.txt").read_text().splitlines().count(event) < count:
        time.sleep(0.02)
    time.sleep(0.5)


def fail(error: Exception) -> None:
    """The task fails."""
    raise error


def fail_unless(path: Path, error: Exception) -> None:
    """The task fails until there is a file."""
    if not path.exists():
        raise error


def event_of(task: Any) -> str:
    """What a task is called in ``events.txt``."""
    match task:
        case MeasureClip(path):
            return f"measure {_stem(path)}"
        case PlanClip(path, decoder):
            return f"plan {_stem(path)} {decoder}"
        case OpenClip(plan, window):
            return f"open {_stem(plan.info.path)} {window} {plan.info.engine}"
        case ReadWindow(window):
            return f"read {window.index}"
        case DrawMap(window, key):
            return f"map {window.index} {key}"
        case MatchPair(window, pair):
            return f"match {window.index} {pair}"
        case TranslateWindow(job, window=window):
            return f"translate {job} {window.index}"
        case PropagateSegment(window, segment):
            return f"propagate {window.index} {segment}"
        case PropagateSegments(window):
            return f"propagate {window.index} on device"
        case SearchFlows(window, segment):
            return f"search {window.index} {segment}"
        case SaveCheckpoint(staging, window):
            return f"save {staging.name} {window.index}"
        case LoadCheckpoint(staging, window):
            return f"load {staging.name} {window.index}"
        case PublishWindow(staging, window):
            return f"publish {staging.name} {window.index}"
        case PublishClip(name=name):
            return f"join {name}"
    raise TypeError(type(task).__name__)


def _stem(path: Path) -> str:
    """Of a clip's name, also where it is read through somebody's descriptor."""
    held = path.is_relative_to("/proc")
    return (Path(os.readlink(path).removesuffix(" (deleted)")) if held else path).stem


@dataclass(frozen=True)
class Watched:
    """A stage whose tasks are events."""

    stage: Any
    events: Events

    def load(self, report: Report) -> "WatchedHandler":
        return WatchedHandler(self.stage.load(report), self.events)


class WatchedHandler:
    def __init__(self, handler: Any, events: Events) -> None:
        self.facts = handler.facts
        self._handler, self._events = handler, events

    def __call__(self, task: Any, blocks: tuple[Block, ...], report: Report) -> Any:
        if isinstance(task, CompilePropagation):
            return None  # propagation is played
        self._events(event_of(task))
        if isinstance(task, PropagateSegment):
            result = _propagate(task.window, task.segment, blocks[0])
        else:
            result = self._handler(task, blocks, report)
        self._events(event_of(task) + " done")
        return result


def _propagate(window: Window, segment: int, block: Block) -> None:
    first, last = window.segments[segment]
    block["results"][first + 1 : last] = 255 - block["frames"][first + 1 : last]


def _mark(task: TranslateWindow, block: Block, key: int) -> int:
    """A small number that says which prompt and which control maps a key frame was made with."""
    text = f"{task.prompt.at(task.window.key_numbers[key])}\0{task.prompt.negative}"
    maps = block["controls"][task.maps[key], key].tobytes() if task.maps else b""
    return zlib.crc32(text.encode() + maps) % 16


@dataclass(frozen=True)
class DeviceStage:
    """Translates and propagates by inverting.

    The carry counts the windows before, and has to be right; segments come with their flows.
    """

    name: str
    events: Events
    largest_batch: int = 99

    def load(self, report: Report) -> "Device":
        self.events(f"load {self.name}")
        return Device(self)


class Device:
    def __init__(self, stage: DeviceStage) -> None:
        self.facts = {"device": "simulated"}
        self._stage = stage
        self._last: tuple[str, int, Any, Any] | None = None

    def __call__(
        self, task: TranslateWindow | PropagateSegments, blocks: tuple[Block, ...], report: Report
    ) -> Any:
        from io_pipeline.worker import OutOfDeviceMemory

        window, block, events = task.window, blocks[0], self._stage.events
        if isinstance(task, PropagateSegments):
            for segment in task.segments:
                first, last = window.segments[segment]
                assert block["flows"][:, first:last].any(axis=(2, 3, 4)).all()
                events(event_of(task))
                _propagate(window, segment, block)
            events(event_of(task) + " done")
            return None
        if task.batch_size > self._stage.largest_batch:
            raise OutOfDeviceMemory(f"no memory for a batch of {task.batch_size}")
        if window.index:
            self._continue(task, block)
        for step in range(STEPS):
            report("step", step, STEPS)
            events(f"step {step} of {event_of(task)}")
        report("step", STEPS, STEPS)
        for key, side in enumerate(task.maps):
            if side == BY_DEVICE:
                block["controls"][BY_DEVICE, key] = 77
        offsets = list(window.key_offsets)
        block["keys"][1:] = 255 - block["frames"][offsets]
        if task.prompt.timed or window.given:
            for key in range(len(offsets)):
                block["keys"][1 + key] ^= _mark(task, block, key)
        block["carry_latents"][:] = window.index + 1
        control = block["controls"][task.maps[-1], -1].copy() if window.controls else None
        self._last = task.job, window.index, block["keys"][-1].copy(), control
        numbers = window.key_numbers
        batches = tuple(
            Batch(numbers[i : i + task.batch_size]) for i in range(0, len(numbers), task.batch_size)
        )
        events(event_of(task))
        warnings = (f"seen: {task.prompt.positive}",) if window.index == 0 else ()
        return Translated(batches, (task.prompt.positive, ""), warnings)

    def _continue(self, task: TranslateWindow, block: Block) -> None:
        before = task.job, task.window.index - 1
        if self._last is not None and self._last[:2] == before:
            _, _, key, control = self._last
        else:
            assert task.checkpoint is not None
            arrays, _ = checkpoint.load(task.checkpoint)
            assert (arrays["carry_latents"] == task.window.index).all()
            key = arrays["keys"][-1]
            control = arrays["controls"][-1] if task.window.controls else None
        block["keys"][0] = key
        if control is not None:
            block["previous_control"][:] = control
