"""Runs of the whole pipeline over clips of a test, with the stages of `simulated`."""

import asyncio
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

from daemon.actions import Action
from daemon.config import Layer, merge
from daemon.demo_clip import render_clip
from daemon.failures import first_cause
from daemon.job_files import JobFiles
from daemon.job_queue import JobQueue
from daemon.jobs import Job, JobResult
from daemon.pipeline import Pipeline
from daemon.settings import Settings
from daemon.setup import open_workshop
from daemon.timeline import Timeline
from daemon.workshop import Workshop
from io_pipeline.cpu_stage import CpuStage
from io_pipeline.reading import ReaderStage
from tests.daemon.simulated import DeviceStage, Events, Fault, Watched

SETTINGS: dict[str, Any] = {
    "key_frames.min_interval": 4,
    "key_frames.max_interval": 4,
    "key_frames.batch_size": 3,
    "key_frames.resolution": 64,
    "control.type": "canny",
    "flow.model": "dis",
    "saliency.model": "motion",
    "cpu.cores": 2,
    "prefetch.memory": "64MiB",
    "limits.max_pixels": 100_000,
}


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

    def warn(self, text: str, action: Action = Action.WARNING) -> None:
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
        admit: Callable[[Job], JobFiles] = JobFiles,
        endless: bool = False,
        **values: Any,
    ) -> list[JobResult]:
        """Take clips through the pipeline; ``beside(run)`` may be awaited meanwhile.

        ``endless``: as the daemon does, which is told to end when these are done.

        Checks that nothing is left: no process, no block, no memory, no core.
        """
        settings = self.settings(**values)
        # Other tests of this process may have left something.
        before = len(children()), blocks()
        self.watcher = Watcher()
        events = Events(self.folder, tuple(faults))
        stages: Any = SimpleNamespace(
            devices=tuple(devices),
            reader=Watched(ReaderStage(settings.limits.max_pixels), events),
            cpu=Watched(CpuStage({"kinds": ("canny",)}), events),
            device=lambda name: DeviceStage(name, events, largest_batch),
        )

        async def whole() -> list[JobResult]:
            shop = open_workshop(settings, stages, Timeline(), self.watcher.warn, lambda: None)
            self.workshop = shop
            queue = JobQueue.of(jobs)
            queue.endless = endless
            pipeline = Pipeline(
                shop,
                queue,
                settings,
                self.output,
                self.watcher,
                identity=lambda: {"version": "1"},
                admit=admit,
                force=force,
                debug=debug,
            )
            try:
                task = asyncio.create_task(pipeline.run())
                if beside is not None:
                    await beside(task)
                while endless and len(self.watcher.ended) < len(jobs):
                    await asyncio.sleep(0.01)
                if endless:
                    queue.drain()
                await task
                assert shop.memory.used == 0
                # What is compiled ahead may outlast the clips.
                await asyncio.gather(*shop.propagation._machine_code._tasks.values())
                assert shop.cores.free == shop.cores.total
                results = {result.clip: result for result in self.watcher.ended}
                return [results[job.clip] for job in jobs]
            finally:
                await shop.close()

        try:
            return asyncio.run(whole())
        except ExceptionGroup as group:
            raise first_cause(group) from None
        finally:
            assert (len(children()), blocks()) == before

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


def blocks() -> int:
    """Blocks that this process has open."""
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own
            count += "memfd:" in os.readlink(f"/proc/self/fd/{descriptor}")
    return count


def children() -> list[int]:
    """Processes that this one has started and that live."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that has just ended
            found += map(int, (task / "children").read_text().split())
    return found


if __name__ == "__main__":  # as a process of its own, that can be killed
    folder, jobs, faults, values = pickle.loads(Path(sys.argv[1]).read_bytes())
    Rig(folder).run(*jobs, faults=faults, **values)
