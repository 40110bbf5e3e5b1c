"""Has workers do things: with the cores they need, and on record."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

from daemon.budget import Budget
from daemon.timeline import Timeline
from daemon.work import ClipWork, WindowWork
from daemon.workers import Worker

# Who goes first where cores are short: what frees memory, then what feeds devices; of that the
# short tasks that no device takes over before the long ones that one may.
PUBLISH, READ, MATCH, DRAW, SEARCH, COMPILE, PROPAGATE = range(7)

Begin = Callable[[Worker], None]


class Runner:
    """Runs calls of workers: cores are held, and spans recorded, for as long as they last.

    ``waiting`` counts the calls that wait for cores, by kind of worker.
    """

    def __init__(self, cores: Budget, timeline: Timeline) -> None:
        self._cores = cores
        self._timeline = timeline
        self._tracks: dict[str, int] = {}
        self.waiting: Counter[str] = Counter()

    def track(self, name: str, kind: str) -> int:
        """The timeline's track of a worker."""
        if name not in self._tracks:
            self._tracks[name] = self._timeline.track(name, kind)
        return self._tracks[name]

    def wait(self, cause: str, clip: ClipWork) -> AbstractContextManager[None]:
        """On record while a clip waits for something that no worker of its own waits for."""
        return self._timeline.wait(None, cause, clip.name)

    async def use(
        self,
        clip: ClipWork,
        stage: str,
        priority: tuple[int, ...],
        cores: int,
        run: Callable[[Begin], Awaitable[Any]],
        work: WindowWork | None = None,
        kind: str = "reader",
        limit: Budget | None = None,
    ) -> Any:
        """Wait for cores, then ``run(begin)``, which calls ``begin`` with the worker it is given.

        ``limit``: one of it is waited for before, and held as long as the cores.

        What runs in a worker cannot be taken back: where the caller is cancelled after ``begin`` it
        goes on, keeps its cores, and stays among ``running`` of the clip and of the window whose
        block it uses until it is done. Before that it is dropped.
        """
        if cores:
            self.waiting[kind] += 1
            try:
                await self._acquire(clip, cores, priority, kind, limit)
            finally:
                self.waiting[kind] -= 1
        index = None if work is None else work.window.index
        span: Any = None

        def begin(worker: Worker) -> None:
            nonlocal span
            if span is not None:  # once more, in another worker
                self._timeline.end(span)
            span = self._timeline.begin(self.track(worker.name, kind), stage, clip.name, index)

        async def held() -> Any:
            start = time.monotonic()
            try:
                return await run(begin)
            finally:
                seconds = time.monotonic() - start
                clip.seconds[stage] += seconds
                if work is not None:
                    work.seconds[stage] += seconds
                if span is not None:
                    self._timeline.end(span)
                if cores:
                    self._cores.release(cores)
                    if limit is not None:
                        limit.release()

        task = asyncio.get_running_loop().create_task(held())
        for running in (clip.running, *([] if work is None else [work.running])):
            running.add(task)
            task.add_done_callback(running.discard)
        task.add_done_callback(_hear)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if span is None:
                task.cancel()
            raise

    async def _acquire(
        self,
        clip: ClipWork,
        cores: int,
        priority: tuple[int, ...],
        kind: str,
        limit: Budget | None,
    ) -> None:
        if limit is not None:
            await limit.acquire(1, priority)
        try:
            if kind != "device" or clip.device is None:
                return await self._cores.acquire(cores, priority)
            with self._timeline.wait(self.track(clip.device.name, kind), "core", clip.name):
                return await self._cores.acquire(cores, priority)
        except BaseException:
            if limit is not None:
                limit.release()
            raise


def _hear(task: asyncio.Task[Any]) -> None:
    """Whoever has been cancelled does not want to know how it ended."""
    if not task.cancelled():
        task.exception()
