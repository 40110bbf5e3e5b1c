"""In which order clips are taken when all of them are known: the longest first."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daemon.jobs import Job
from daemon.readers import Readers
from daemon.workers import Worker
from io_pipeline.tasks import ClipSize

AT_ONCE = 8


async def longest_first(jobs: Sequence[Job], readers: Readers, cores: int) -> list[Job]:
    """The jobs by frames times pixels, as their headers say; equal ones in the order given.

    Whoever is free takes the longest that is left (Graham, 1969): no device is busy with a long
    clip when the others have long been done. Clips whose header says nothing come last.
    """
    if len(jobs) < 2:
        return list(jobs)
    sizes: dict[Path, ClipSize] = {}
    waiting = list(reversed(jobs))

    async def run(worker: Worker, task: Any, blocks: Any) -> Any:
        return await worker.run(task, blocks)

    async def measure() -> None:
        while waiting:
            clip = waiting.pop().clip
            async with readers.open(clip, run) as reader:
                sizes[clip] = await reader.measure()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(cores, AT_ONCE, len(jobs))):
            group.create_task(measure())
    return sorted(jobs, key=lambda job: -sizes[job.clip].frames * sizes[job.clip].pixels)
