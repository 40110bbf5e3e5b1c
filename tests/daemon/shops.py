"""A workshop in which the test itself plays the workers."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from daemon.budget import Budget
from daemon.fingerprints import Fingerprints
from daemon.jobs import Job
from daemon.memory import Account, Memory
from daemon.timeline import Timeline
from daemon.work import ClipWork
from daemon.workshop import Workshop
from daemon.workshop_options import WorkshopOptions
from io_pipeline.prompt import Prompt
from io_pipeline.window import Window


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test, which may not take long."""

    async def limited() -> None:
        async with asyncio.timeout(10):
            await test

    asyncio.run(limited())


def clip_work(name: str = "a", number: int = 0, *, ahead: bool = True) -> ClipWork:
    """A clip in work that is no file; with a device it is not ``ahead``."""
    job = Job(Path(f"{name}.mp4"), Path(f"{name}.txt"), name)
    prints = Fingerprints("", "", "")
    clip = ClipWork(
        job, number, prints, Prompt("a car", None), Account(number, ahead), Path("/out") / name
    )
    plan: Any = None
    clip.plan = plan
    return clip


def window(index: int = 0, *, controls: int = 0) -> Window:
    """A small window of two segments."""
    first = 8 * index
    return Window(
        index, 3, first, (first, first + 4, first + 8), 64, 64, 5, controls=controls, flows=False
    )


class Pool:
    """Runs a task when the test says so: ``start`` is as long as its worker takes to come up."""

    def __init__(self) -> None:
        self.workers = ()
        self.worker: Any = SimpleNamespace(name="cpu-0")
        self.start = asyncio.Event()
        self.finish = asyncio.Event()
        self.error: Exception | None = None
        self.seen: list[str] = []

    async def run(self, task: Any, blocks: Any, *, priority: Any, on_start: Any) -> None:
        try:
            await self.start.wait()
        except asyncio.CancelledError:
            self.seen.append("dropped")
            raise
        on_start(self.worker)
        self.seen.append("begun")
        await self.finish.wait()
        assert all(block.descriptor >= 0 for block in blocks)
        self.seen.append("done")
        if self.error is not None:
            raise self.error


def shop(
    pool: Pool | None = None,
    *,
    total: int = 1 << 24,
    space: float = 1.0,
    cores: int = 1,
    segments: int = 0,
    devices: Any = None,
    side: str = "auto",
) -> tuple[Any, list[str]]:
    """A workshop without readers, and its warnings; ``devices``: none by default."""
    warnings: list[str] = []
    workers: Any = pool or Pool()
    devices = devices or SimpleNamespace(all=[], forget=lambda number: None)
    readers: Any = None
    options = WorkshopOptions(
        control_device="auto",
        device_threads=1,
        space_timeout=space,
        segments=segments,
        propagation_device=side,
        propagation_memory=1 << 20,
    )
    made = Workshop(
        readers,
        workers,
        devices,
        Budget(cores),
        Memory(total),
        Timeline(),
        options,
        lambda text, action: warnings.append(text),
    )
    return made, warnings
