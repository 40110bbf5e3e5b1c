"""A run of the real scheduler with simulated stages, and what can be told of it afterwards."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.simulated import (
    CpuStage,
    DeviceStage,
    Durations,
    ReaderStage,
    plan_clip,
    write_clip,
)
from daemon.config import Layer, merge
from daemon.job_queue import JobQueue
from daemon.jobs import Job, JobResult, Outcome
from daemon.order import longest_first
from daemon.pipeline import Pipeline
from daemon.setup import open_workshop
from daemon.timeline import Spans, Timeline
from daemon.workshop import Workshop
from io_pipeline.window import Window, windows

GPUS, HOST = 8, 128
BATCH_SIZE = 8
# A quarter of the area of 512x512, and so a quarter of the memory that eight GPUs have by default.
SIDE, MEMORY = 256, f"{(GPUS + 1) * 256}MiB"


class Silent:
    """A `daemon.progress.Progress` that shows only what went wrong."""

    def end(self, job: Job, result: JobResult) -> None:
        if result.outcome is not Outcome.DONE:
            raise SystemExit(f"{job.name}: {result.outcome}: {result.reason}")

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


@dataclass
class Simulation:
    """A workshop of simulated stages whose processes are up, and its clips."""

    folder: Path
    durations: Durations
    workshop: Workshop
    timeline: Timeline
    settings: Any
    log: Path

    async def run(self, name: str, clips: Sequence[tuple[int, ...]]) -> list[Job]:
        """Take clips (`write_clip`'s frames, width, height, interval) through the pipeline."""
        jobs = [self.clip(f"{name}-{i}", *clip) for i, clip in enumerate(clips)]
        await self.pipeline(await self.order(jobs)).run()
        return jobs

    async def warm(self) -> None:
        """Wait until every process is up that there may be."""
        shop = self.workshop
        clip = self.clip("warm", 1).clip

        async def measure() -> None:
            async with shop.readers.open(clip, lambda worker, *task: worker.run(*task)) as reader:
                await reader.measure()

        await asyncio.gather(*(shop.pool.run(None) for _ in shop.pool.workers))
        await asyncio.gather(*(measure() for _ in range(2 * GPUS)))
        for device in await asyncio.gather(*(shop.devices.take(1) for _ in shop.devices.all)):
            shop.devices.give(device)

    def pipeline(self, jobs: Sequence[Job]) -> Pipeline:
        queue, output = JobQueue.of(jobs), self.folder / "output"
        return Pipeline(self.workshop, queue, self.settings, output, Silent(), identity=dict)

    async def order(self, jobs: Sequence[Job]) -> list[Job]:
        return await longest_first(jobs, self.workshop.readers, self.workshop.cores.total)

    def clip(self, name: str, frames: int, *shape: int) -> Job:
        path = self.folder / f"{name}.sim"
        write_clip(path, frames, *(shape or (SIDE, SIDE)))
        return Job(path, path.with_suffix(".txt"), name)

    def processes(self) -> list[Any]:
        """All workers."""
        shop = self.workshop
        devices = [device.worker for device in shop.devices.all]
        return [*shop.pool.workers, *devices, *shop.readers.workers]

    def traffic(self) -> int:
        """Bytes that went through all sockets."""
        return sum(worker.traffic for worker in self.processes())


@asynccontextmanager
async def simulation(
    folder: Path,
    durations: Durations,
    cores: int,
    memory: str = MEMORY,
    *,
    gpus: int | None = None,
    host: int | None = None,
    side: str = "cpu",
) -> AsyncIterator[Simulation]:
    """A workshop as `frescod run` opens it, its processes started.

    ``durations`` are those on a host of so many cores (None: `HOST`) and GPUs (None: `GPUS`);
    ``side`` is to propagate.
    """
    gpus, host = gpus or GPUS, host or HOST
    durations = durations.on_faster_cores((host - gpus) / (cores - gpus))
    settings = merge(
        Layer(
            "simulation",
            {
                "cpu.cores": cores,
                "prefetch.memory": memory,
                "key_frames.batch_size": BATCH_SIZE,
                "propagation.device": side,
                "flow.model": "raft",  # found by devices, in the time of translation
            },
        )
    )
    log = folder / "segments"
    log.touch()
    stages = SimpleNamespace(
        devices=tuple(f"cuda:{i}" for i in range(gpus)),
        reader=ReaderStage(durations, BATCH_SIZE),
        cpu=CpuStage(durations, log),
        device=lambda name: DeviceStage(name, durations),
    )
    timeline = Timeline()
    shop = open_workshop(settings, stages, timeline, print, lambda: None)
    try:
        await shop.start()
        simulated = Simulation(folder, durations, shop, timeline, settings, log)
        await simulated.warm()
        yield simulated
    finally:
        await shop.close()


def frames_of(count: int) -> int:
    """Frames of a clip of so many windows, with a key frame every fifth: 8 in the first, then 6."""
    return 5 * (6 * count + 1) + 1


def windows_of(jobs: Sequence[Job]) -> list[Window]:
    """All windows of the clips."""
    plans = [plan_clip(job.clip, BATCH_SIZE) for job in jobs]
    return [w for plan in plans for w in windows(plan, steps=15, flows=True)]


def mixed(count: int, longest: int) -> list[tuple[int, ...]]:
    """Clips of 1 to ``longest`` windows, as many between n and 2n as between 2n and 4n."""
    lengths = random.Random(0)
    return [(frames_of(round(longest ** lengths.random())),) for _ in range(count)]


def worked(sim: Simulation, run: str, name: str, jobs: Sequence[Job]) -> float:
    """How much of a stage's spans its workers were at it; messages are the rest."""
    spans, durations, nominal = sim.timeline.spans(), sim.durations, 0.0
    for window in windows_of(jobs):
        if name == "translate":
            nominal += durations.key_frame * len(window.key_numbers)
        else:
            nominal += sum(durations.segment(end - begin - 1) for begin, end in window.segments)
    which = chosen(spans, run, name)
    return nominal * durations.scale / float((spans.end - spans.begin)[which].sum())


def segment_delays(sim: Simulation) -> list[float]:
    """Seconds from a window's key frames, on the device, to its first segment, in the worker.

    Of windows that find as many cores free as they have segments.
    """
    first: dict[float, float] = {}
    for line in sim.log.read_text().splitlines():
        ready, begun = map(float, line.split())
        first[ready] = min(begun, first.get(ready, begun))
    spans = sim.timeline.spans()
    zero = time.monotonic() - sim.timeline.now()
    on_core = spans.of("cpu", work=True) | spans.of("reader", work=True)
    begins, ends = np.sort(spans.begin[on_core]), np.sort(spans.end[on_core])
    times = np.array(list(first)) - zero
    used = np.searchsorted(begins, times) - np.searchsorted(ends, times)
    free = used + BATCH_SIZE <= sim.workshop.cores.total
    return [begun - ready for (ready, begun), f in zip(first.items(), free, strict=True) if f]


def chosen(spans: Spans, run: str, name: str) -> Any:
    """Which spans are work of a stage, in the clips of one run."""
    of_run = np.array([job.startswith(f"{run}-") for job in spans.jobs])
    return spans.of(name=name, work=True) & of_run[spans.job]


def extent(spans: Spans, which: Any) -> tuple[float, float]:
    """From the first beginning to the last end."""
    return float(spans.begin[which].min()), float(spans.end[which].max())


def share(spans: Spans, which: Any, tracks: int, first: float, last: float) -> float:
    """How much of the time of so many tracks the chosen spans take."""
    return spans.seconds(which, first, last) / (tracks * (last - first))


def saturated(spans: Spans, which: Any, count: int) -> tuple[float, float]:
    """From the first to the last moment at which so many spans went on at once."""
    times = np.concatenate([spans.begin[which], spans.end[which]])
    change = np.repeat([1, -1], which.sum())
    order = np.lexsort((change, times))  # ends before beginnings
    full = times[order][np.cumsum(change[order]) >= count]
    return (float(full.min()), float(full.max())) if len(full) else (0.0, 0.0)


@dataclass
class Sampler:
    """What processes hold of blocks, by what the kernel says."""

    pids: Sequence[int]
    peak: int = 0
    mapped: int = 0
    count: int = 0

    async def sample(self) -> None:
        """Until cancelled."""
        while True:
            self.peak = max(self.peak, allocated(self.pids))
            maps = Path("/proc/self/maps").read_text()
            self.mapped = max(self.mapped, maps.count("memfd:frescod"))
            self.count += 1
            await asyncio.sleep(0.02)


def allocated(pids: Sequence[int]) -> int:
    """Bytes of memory in all blocks that any of the processes holds."""
    blocks: dict[int, int] = {}
    for pid in pids:
        with suppress(FileNotFoundError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with suppress(FileNotFoundError):
                    if os.readlink(entry.path).startswith("/memfd:frescod"):
                        status = os.stat(entry.path)
                        blocks[status.st_ino] = status.st_blocks * 512
    return sum(blocks.values())
