"""Runs of the whole pipeline with small stages: real processes, clips, blocks and result folders.

The networks are replaced: translating and propagating invert the picture, so that every frame of a
result tells which frame of the clip it was. A run is disturbed by faults: things that a worker does
when it comes to a named event, such as ``translate a 1`` (job ``a``, window 1). All events are
written down in ``events.txt``, a line each; ``done`` is added where a task is done.
"""

import asyncio
import fcntl
import json
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from daemon.config import Layer, merge
from daemon.demo_clip import render_clip
from daemon.failures import first_cause
from daemon.jobs import Job, JobResult
from daemon.pipeline import Pipeline
from daemon.settings import Settings
from daemon.setup import open_workshop
from daemon.timeline import Timeline
from daemon.workshop import Workshop
from fresco_core.keyframes import Batch
from fresco_core.propagation import PropagationOptions
from io_pipeline import checkpoint
from io_pipeline.blocks import Block
from io_pipeline.cpu_stage import CpuStage
from io_pipeline.reading import ReaderStage
from io_pipeline.tasks import (
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
from io_pipeline.window import BY_DEVICE
from io_pipeline.worker import Report

SETTINGS: dict[str, Any] = {
    "key_frames.min_interval": 4,
    "key_frames.max_interval": 4,
    "key_frames.batch_size": 3,
    "key_frames.resolution": 64,
    "control.type": "canny",
    "cpu.cores": 2,
    "prefetch.memory": "64MiB",
    "limits.max_pixels": 100_000,
}
CANNY = {"kind": "canny", "source": None, "canny_low": 50, "canny_high": 100}
STEPS = 3


@dataclass(frozen=True)
class Fault:
    """What is done at an event, the first ``times`` times."""

    event: str
    do: Callable[[], None]
    times: int = 1


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
            if fault.event == event and before < fault.times:
                fault.do()


def kill(number: int = 9) -> None:
    """The worker dies."""
    os.kill(os.getpid(), number)


def kill_supervisor() -> None:
    """The process that started the worker dies."""
    os.kill(os.getppid(), 9)


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
            return f"measure {path.stem}"
        case PlanClip(path, decoder):
            return f"plan {path.stem} {decoder}"
        case OpenClip(plan, window):
            return f"open {plan.info.path.stem} {window} {plan.info.engine}"
        case ReadWindow(window):
            return f"read {window.index}"
        case DrawMap(window, key):
            return f"map {window.index} {key}"
        case TranslateWindow(job, window):
            return f"translate {job} {window.index}"
        case PropagateSegment(window, segment):
            return f"propagate {window.index} {segment}"
        case SaveCheckpoint(staging, window):
            return f"save {staging.name} {window.index}"
        case LoadCheckpoint(staging, window):
            return f"load {staging.name} {window.index}"
        case PublishWindow(staging, window):
            return f"publish {staging.name} {window.index}"
        case PublishClip(name=name):
            return f"join {name}"
    raise TypeError(type(task).__name__)


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
        self._events(event_of(task))
        if isinstance(task, PropagateSegment):
            first, last = task.window.segments[task.segment]
            blocks[0]["results"][first + 1 : last] = 255 - blocks[0]["frames"][first + 1 : last]
            result = None
        else:
            result = self._handler(task, blocks, report)
        self._events(event_of(task) + " done")
        return result


@dataclass(frozen=True)
class DeviceStage:
    """Translates by inverting. The carry counts the windows before, and has to be right."""

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

    def __call__(self, task: TranslateWindow, blocks: tuple[Block, ...], report: Report) -> Any:
        from io_pipeline.worker import OutOfDeviceMemory

        window, block, events = task.window, blocks[0], self._stage.events
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
        block["carry_latents"][:] = window.index + 1
        control = block["controls"][task.maps[-1], -1].copy() if window.control else None
        self._last = task.job, window.index, block["keys"][-1].copy(), control
        numbers = window.key_numbers
        batches = tuple(
            Batch(numbers[i : i + task.batch_size])
            for i in range(0, len(numbers), task.batch_size)
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
            control = arrays["controls"][-1] if task.window.control else None
        block["keys"][0] = key
        if control is not None:
            block["previous_control"][:] = control


@dataclass
class Watcher:
    """A progress that remembers."""

    stages: dict[str, dict[str, list[tuple[float, int | None]]]] = field(default_factory=dict)
    ended: list[JobResult] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)

    def begin(self, job: Job, number: int, count: int) -> None:
        self.stages[job.name] = {}

    def stage(self, job: Job, name: str, done: float, total: int | None, seconds: float) -> None:
        self.stages[job.name].setdefault(name, []).append((done, total))

    def end(self, job: Job, result: JobResult) -> None:
        self.ended.append(result)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def trace(self, text: str) -> None:
        self.traces.append(text)


class Rig:
    """A folder of clips, and runs over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "out"
        self.watcher = Watcher()
        self.workshop: Workshop

    def job(self, name: str = "a", frames: int = 18, prompt: str = "a car") -> Job:
        """A new clip."""
        clip, prompt_file = self.folder / f"{name}.mp4", self.folder / f"{name}.txt"
        render_clip(clip, width=96, height=64, frames=frames)
        prompt_file.write_text(prompt)
        return Job(clip, prompt_file, name)

    def run(
        self,
        *jobs: Job,
        faults: Sequence[Fault] = (),
        devices: Sequence[str] = ("cpu",),
        largest_batch: int = 99,
        force: bool = False,
        debug: bool = False,
        beside: Callable[[asyncio.Task[Any]], Any] | None = None,
        **values: Any,
    ) -> list[JobResult]:
        """Take clips through the pipeline; ``beside(run)`` may be awaited meanwhile.

        Checks that nothing is left: no process, no block, no memory, no core.
        """
        settings = self.settings(**values)
        self.watcher = Watcher()
        events = Events(self.folder, tuple(faults))
        stages: Any = SimpleNamespace(
            devices=tuple(devices),
            reader=Watched(reader_stage(settings), events),
            cpu=Watched(CpuStage(CANNY, PropagationOptions()), events),
            device=lambda name: DeviceStage(name, events, largest_batch),
        )

        async def whole() -> list[JobResult]:
            shop = open_workshop(settings, stages, Timeline(), self.watcher.warn, lambda: None)
            self.workshop = shop
            pipeline = Pipeline(
                shop, settings, self.output, self.watcher, identity={"version": "1"}, debug=debug
            )
            try:
                task = asyncio.create_task(pipeline.run(jobs, force=force))
                if beside is not None:
                    await beside(task)
                results = await task
                assert shop.memory.used == 0
                assert shop.cores.free == shop.cores.total
                return results
            finally:
                await shop.close()

        try:
            return asyncio.run(whole())
        except ExceptionGroup as group:
            raise first_cause(group) from None
        finally:
            assert children() == []
            assert blocks() == 0

    def settings(self, **values: Any) -> Settings:
        """The settings of a run: ``section__key=value``."""
        changed = {key.replace("__", "."): value for key, value in values.items()}
        return merge(Layer("test", SETTINGS), Layer("changed", changed))

    def events(self, *starts: str) -> list[str]:
        """What happened, in order, of what begins like that."""
        file = self.folder / "events.txt"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if line.startswith(starts)]

    def forget_events(self) -> None:
        (self.folder / "events.txt").unlink()

    def manifest(self, name: str = "a") -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.output / name / "manifest.json").read_bytes())
        return told

    def pictures(self, name: str = "a") -> dict[str, bytes]:
        """Every file of a result but the manifest."""
        folder = self.output / name
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "manifest.json"
        }


def reader_stage(settings: Settings) -> ReaderStage:
    """The real one."""
    frames = settings.key_frames
    return ReaderStage(
        min_interval=frames.min_interval,
        max_interval=frames.max_interval,
        batch_size=frames.batch_size,
        resolution=frames.resolution,
        on_truncated="warn",
        max_pixels=settings.limits.max_pixels,
    )


def blocks() -> int:
    """Blocks that this process has open."""
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own
            count += "memfd:" in os.readlink(f"/proc/self/fd/{descriptor}")
    return count


def children() -> list[int]:
    """Processes that this one has started and that live."""
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


if __name__ == "__main__":  # as a process of its own, that can be killed
    # under its own name, for workers to find the same classes
    from tests.daemon import simulated

    folder, jobs, faults = pickle.loads(Path(sys.argv[1]).read_bytes())
    simulated.Rig(folder).run(*jobs, faults=faults)
